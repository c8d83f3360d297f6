"""The control half of the proxy: its trio process."""
