"""The catalogue in force: a folder's or a bucket's, renewed as builds come."""
