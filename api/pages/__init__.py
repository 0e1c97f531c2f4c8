"""Pages for people: STAC Browser, the coverage map."""
