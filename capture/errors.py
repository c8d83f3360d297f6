"""What can go wrong in traffic takeover. Each error says cause and remedy, and carries a stable ``reason``.

Raised by this room only; the node agent maps ``reason`` to its metric and event, the command line prints the sentence.
"""

__all__ = [
    "BackendUnusableError",
    "CaptureError",
    "CaptureFailedError",
    "CommandFailedError",
    "ConfigError",
    "NetnsError",
    "ParseError",
    "RoutingError",
    "ToolMissingError",
]


class CaptureError(Exception):
    """Root of this room's errors."""

    reason = "capture_error"


class ConfigError(CaptureError):
    """A capture configuration holds a value that no rule can be made of; nothing was touched."""

    reason = "capture_config"


class NetnsError(CaptureError):
    """A network namespace could not be opened, entered or made."""

    reason = "capture_netns"


class ParseError(CaptureError):
    """The output of a tool is not what the tool documents, or is larger than any honest rule set."""

    reason = "capture_parse"


class CommandFailedError(CaptureError):
    """A tool (nft, iptables-restore, the python-iptables child) is missing, failed or did not end in time."""

    reason = "capture_command"


class ToolMissingError(CommandFailedError):
    """A tool is not installed."""


class RoutingError(CaptureError):
    """The kernel refused a policy routing request."""

    reason = "capture_routing"


class BackendUnusableError(CaptureError):
    """No backend, or not the one asked for, works on this machine; nothing was touched."""

    reason = "capture_backend"


class CaptureFailedError(CaptureError):
    """A change of a pod's rules failed.

    ``closed`` tells what the pod is left as: True, the guardrail drops its TCP and UDP until a repair succeeds;
    False, the guardrail itself could not be put, and the pod is as it was before the change.
    """

    reason = "capture_failed"

    def __init__(self, message: str, *, closed: bool) -> None:
        super().__init__(message)
        self.closed = closed
