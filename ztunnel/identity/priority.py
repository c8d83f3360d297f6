"""How urgent a certificate is. Pure."""

from enum import IntEnum

__all__ = ["Priority"]


class Priority(IntEnum):
    """Lower is sooner (ztunnel's order)."""

    REAL_TIME = 0
    """A connection waits for it."""
    WARMUP = 1
    """A workload of this node just appeared."""
    BACKGROUND = 2
    """Renewal of one that is still valid."""
