"""The agent-to-proxy protocol: pods arrive as netns descriptors."""
