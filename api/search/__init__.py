"""One ``Query`` from GET or POST, and its page of items; counts, orders, collections."""
