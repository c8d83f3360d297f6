"""The mesh as its operator sees it."""
