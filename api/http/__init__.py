"""HTTP: limits, links behind proxies, caching, errors, metrics."""
