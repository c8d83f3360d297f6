"""Traffic takeover: rule sets as data, their backends, and entry into network namespaces."""
