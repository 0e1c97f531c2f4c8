"""The STAC API's endpoints, in stac-fastapi's framework."""
