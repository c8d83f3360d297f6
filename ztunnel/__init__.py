"""The node proxy: captures, tunnels, enforces L4 policy, explains itself."""
