"""Admin, metrics and readiness over HTTP."""
