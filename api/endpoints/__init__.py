"""The STAC API's endpoints on stac-fastapi's frame."""
