"""Where a connection goes: pure functions of the state and the connection."""
