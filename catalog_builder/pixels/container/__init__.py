"""The containers: one module each, and the table of them."""
