"""The link between the two halves of the proxy: typed messages and their socket."""
