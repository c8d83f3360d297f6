"""Admin (15000), metrics (15020) and readiness (15021) over HTTP/1.1; runs in the control half."""
