"""What the proxy knows: workloads, services, policies, and the indexes over them."""
