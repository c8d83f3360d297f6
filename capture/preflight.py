"""Whether this machine can run the mesh, told before anything is touched.

Called by ``ambient check`` and by the installers. Host checks only read; network checks work in a network namespace that
is made for them and ends with them. Works without root too: what can't be tried then is said to be untried.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from tempfile import TemporaryDirectory

from capture import preflight_host, preflight_net
from capture.command import Tools
from capture.finding import Finding, Status

__all__ = ["Check", "Finding", "Group", "Report", "Status", "checks", "run_checks"]


class Group(StrEnum):
    PRIVILEGES = "privileges"
    KERNEL = "kernel"
    CAPTURE = "capture"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Check:
    """One item of the list, with what was found."""

    group: Group
    name: str
    finding: Finding


@dataclass(frozen=True, slots=True)
class Report:
    checks: tuple[Check, ...]

    @property
    def usable(self) -> bool:
        """Nothing failed; warnings don't keep the mesh from working."""
        return all(check.finding.status is not Status.FAIL for check in self.checks)

    def to_plain(self) -> dict[str, object]:
        """The report for ``-o json``. Fields are only ever added."""
        return {
            "usable": self.usable,
            "checks": [
                {
                    "group": check.group.value,
                    "name": check.name,
                    "status": check.finding.status.value,
                    "found": check.finding.found,
                    "why": check.finding.why,
                    "remedy": check.finding.remedy,
                }
                for check in self.checks
            ],
        }


def checks(tools: Tools) -> Iterator[tuple[Group, str, Callable[[], Finding]]]:
    """Every check, not yet run, in the order in which they make sense to a reader."""
    yield Group.PRIVILEGES, "root", preflight_host.root
    for capability in preflight_host.CAPABILITIES:
        yield Group.PRIVILEGES, capability.name, partial(preflight_host.capability, capability)
    yield Group.KERNEL, "version", preflight_host.kernel
    net = preflight_net.NetChecks(tools)
    yield Group.KERNEL, "network namespaces", net.namespaces
    yield Group.KERNEL, "IP_TRANSPARENT", net.transparent
    yield Group.KERNEL, "SO_MARK", net.mark
    yield Group.KERNEL, "IPv6 on loopback", net.ipv6
    yield Group.KERNEL, "policy routing", net.routing
    for name in preflight_net.BACKENDS:
        yield Group.CAPTURE, name.value, partial(net.backend, name)
    yield Group.CAPTURE, "any backend", net.any_backend
    yield Group.CAPTURE, "SO_ORIGINAL_DST", net.original_destination
    yield Group.SYSTEM, "open files", preflight_host.open_files
    yield Group.SYSTEM, "cgroup2", preflight_host.cgroup2
    yield Group.SYSTEM, "bpffs", preflight_host.bpffs
    yield Group.SYSTEM, "OpenSSL", preflight_host.openssl
    yield Group.SYSTEM, "clock", preflight_host.clock


def run_checks(tools: Tools | None = None) -> Report:
    """Runs them all; about two seconds. A check that breaks is reported as failed, never raised."""
    # Lock files go to a folder of their own, too: nothing is left on the machine.
    with TemporaryDirectory(prefix="ambient-check-") as folder:
        return Report(tuple(_run(*check) for check in checks(replace(tools or Tools(), lock_dir=folder))))


def _run(group: Group, name: str, check: Callable[[], Finding]) -> Check:
    try:
        finding = check()
    except Exception as error:  # noqa: BLE001 - a diagnosis that ends in a traceback helps nobody
        finding = Finding(Status.FAIL, f"the check itself failed: {type(error).__name__}: {error}", "", "report this as a bug")
    return Check(group, name, finding)
