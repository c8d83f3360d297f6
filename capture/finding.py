"""The outcome of one preflight check. Pure; made by preflight_host and preflight_net, shown by ``ambient check``."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Status", "ok"]


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    """Works, with less than everything; or could not be tried."""
    FAIL = "fail"
    """The mesh cannot run like this."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``found``: what is so; ``why``: what it is needed for; ``remedy``: what to do, empty when nothing has to be done."""

    status: Status
    found: str
    why: str
    remedy: str = ""


def ok(found: str, why: str) -> Finding:
    """All is well."""
    return Finding(Status.OK, found, why)
