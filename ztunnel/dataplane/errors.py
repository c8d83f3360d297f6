"""Errors of the data plane, for the operator."""

from ztunnel.reasons import CloseReason

__all__ = ["DataPlaneError", "DialError", "ListenError", "NetnsError"]


class DataPlaneError(Exception):
    """Root of this room's errors; the text names the cause and the remedy."""


class NetnsError(DataPlaneError):
    """A network namespace cannot be entered."""


class ListenError(DataPlaneError):
    """A listener of a pod cannot be opened."""


class DialError(DataPlaneError):
    """A tunnel cannot be opened, and that is known at once."""

    def __init__(self, reason: CloseReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
