"""HTTP's rules at the door: limits, links behind proxies, caching, errors, metrics."""
