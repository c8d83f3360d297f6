"""What can go wrong in the lab. Every error says the cause and the remedy, and carries a stable ``reason``."""

import subprocess
from typing import ClassVar

__all__ = ["LabBroken", "LabBusy", "LabCommandFailed", "LabError", "LabSpecError", "LabUnknown", "LabUnsupported"]


class LabError(Exception):
    """Root of the lab's errors: ``cause`` and ``remedy`` are sentences for the operator."""

    reason: ClassVar[str] = "lab_error"

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause} ({remedy})")
        self.cause = cause
        self.remedy = remedy


class LabSpecError(LabError, ValueError):
    """The description of the lab cannot be built: a bad or doubled name, or too many nodes or pods."""

    reason = "lab_spec"


class LabUnsupported(LabError):
    """The machine lacks something: root rights, iproute2, IPv6, the bridge or veth driver."""

    reason = "lab_unsupported"


class LabBusy(LabError):
    """The name is taken, or the lab belongs to another live process."""

    reason = "lab_busy"


class LabUnknown(LabError, LookupError):
    """No lab, node or pod has this name."""

    reason = "lab_unknown"


class LabBroken(LabError):
    """The kernel or the state file refused: the lab is not what its state says."""

    reason = "lab_broken"


class LabCommandFailed(subprocess.CalledProcessError):
    """A command run in the lab exited with a failure; unlike its parent it shows what the command said."""

    def __str__(self) -> str:
        said = (self.stderr or self.output or "").strip()
        return f"{super().__str__()}{': ' + said[-2000:] if said else ''}"
