"""What can go wrong in enrolment. Each error has the operator's sentence and a stable ``reason``."""

from typing import ClassVar

__all__ = ["AgentSocketError", "EnrolError", "NodeError", "PodsFileError"]


class NodeError(Exception):
    """Root of this room's errors."""

    reason: ClassVar[str] = "node_error"


class EnrolError(NodeError):
    """A pod is not enrolled.

    ``retryable``: its rules are in place and the proxy has yet to take it; otherwise nothing was changed.
    """

    reason: ClassVar[str] = "enrol"

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class AgentSocketError(NodeError):
    """The socket for proxies cannot be opened."""

    reason: ClassVar[str] = "agent_socket"


class PodsFileError(NodeError):
    """A pods file that cannot be used; the one before stays in force."""

    reason: ClassVar[str] = "pods_file"
