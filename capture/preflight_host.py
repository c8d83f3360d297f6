"""Preflight checks that only read: privileges, kernel version, limits, mounts, libraries, clock. Called by capture.preflight."""

import ctypes
import datetime
import os
import platform
import re
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from capture.finding import Finding, Status, ok

__all__ = ["CAPABILITIES", "Capability", "bpffs", "capability", "cgroup2", "clock", "kernel", "open_files", "openssl", "root"]


@dataclass(frozen=True, slots=True)
class Capability:
    """``bit`` as in linux/capability.h. ``vital``: without it nothing works."""

    name: str
    bit: int
    vital: bool
    why: str


CAPABILITIES: Final = (
    Capability("CAP_NET_ADMIN", 12, True, "writes packet filter rules and routes in pods; sets socket marks"),
    Capability("CAP_SYS_ADMIN", 21, True, "enters the network namespaces of pods (setns)"),
    Capability("CAP_NET_RAW", 13, True, "dials the application from the client's address (IP_TRANSPARENT)"),
    Capability("CAP_SYS_PTRACE", 19, False, "the node agent finds pods' network namespaces in /proc/PID/ns"),
    Capability("CAP_DAC_OVERRIDE", 1, False, "the node agent reads /proc and runtime directories of other users"),
)

_KERNEL_WORKS: Final = (4, 18)
_KERNEL_GOOD: Final = (5, 4)  # inet-family nat came with 5.2; 5.4 is the first long-term release that has it
_FILES_FEW: Final = 4096
_FILES_GOOD: Final = 65536
_OPENSSL_GOOD: Final = (3, 0)
_OLDEST_NOW: Final = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).timestamp()
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronized
_TIMEX_SIZE: Final = 256  # struct timex has 208 bytes on 64-bit machines


def root() -> Finding:
    why = "capture and the proxy work inside the network namespaces of pods"
    if os.geteuid() == 0:
        return ok("running as root", why)
    return Finding(Status.FAIL, f"running as user {os.geteuid()}", why, "run as root (sudo ambient check) to try everything")


def capability(wanted: Capability) -> Finding:
    if _effective_capabilities() >> wanted.bit & 1:
        return ok("held", wanted.why)
    remedy = f"run as root; in a container add {wanted.name.removeprefix('CAP_')} to securityContext.capabilities.add"
    return Finding(Status.FAIL if wanted.vital else Status.WARN, "not held", wanted.why, remedy)


def kernel() -> Finding:
    why = "network namespaces, connection marks, REDIRECT for both families in one nftables table (5.2)"
    release = platform.release()
    version = _version(release)
    if version >= _KERNEL_GOOD:
        return ok(release, why)
    if version >= _KERNEL_WORKS:
        return Finding(Status.WARN, f"{release}: nftables cannot be used, iptables can", why, "use kernel 5.4 or newer")
    return Finding(Status.FAIL, release, why, "use kernel 5.4 or newer")


def open_files() -> Finding:
    why = "each captured connection takes up to two descriptors, each pod six listeners"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"soft {_limit(soft)}, hard {_limit(hard)}"
    remedy = "set LimitNOFILE=1048576 in the unit, or 'ulimit -Hn 1048576' before starting"
    if hard == resource.RLIM_INFINITY or hard >= _FILES_GOOD:
        return ok(found, why)
    return Finding(Status.WARN if hard >= _FILES_FEW else Status.FAIL, found, why, remedy)


def cgroup2() -> Finding:
    why = "eBPF capture, which is not there yet, will attach its programs there; nothing needs it now"
    if places := _mounted("cgroup2"):
        return ok(f"mounted at {places[0]}", why)
    return Finding(Status.WARN, "not mounted", why, "nothing for now; later: boot with systemd.unified_cgroup_hierarchy=1")


def bpffs() -> Finding:
    why = "eBPF capture, which is not there yet, will keep its programs there; nothing needs it now"
    if places := _mounted("bpf"):
        return ok(f"mounted at {places[0]}", why)
    return Finding(Status.WARN, "not mounted", why, "nothing for now; later: mount -t bpf bpffs /sys/fs/bpf")


def openssl() -> Finding:
    why = "tunnels are TLS 1.3"
    remedy = "install the project with its own dependencies: pip install 'cryptography>=46' 'pyOpenSSL>=26'"
    try:
        import OpenSSL
        from OpenSSL import SSL

        version = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode("ascii", "replace")
        SSL.Context(SSL.TLS_METHOD).set_min_proto_version(SSL.TLS1_3_VERSION)
    except Exception as error:  # noqa: BLE001 - ImportError, AttributeError of mismatched versions, SSL.Error: all mean the same
        return Finding(Status.FAIL, f"TLS 1.3 cannot be had: {error}", why, remedy)
    found = f"{version}, pyOpenSSL {OpenSSL.__version__}, TLS 1.3"
    if _version(version.partition(" ")[2]) >= _OPENSSL_GOOD:
        return ok(found, why)
    return Finding(Status.WARN, found, why, remedy)


def clock() -> Finding:
    why = "certificates live for a day: a wrong clock makes every peer's look expired or not yet valid"
    now = time.time()
    text = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    remedy = "run a time service (apt-get install chrony, or systemd-timesyncd)"
    if now < _OLDEST_NOW:
        return Finding(Status.FAIL, f"{text} is in the past", why, remedy)
    if _synchronized():
        return ok(f"{text}, synchronized", why)
    return Finding(Status.WARN, f"{text}, the kernel says that no time service keeps it right", why, remedy)


def _effective_capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _synchronized() -> bool:
    libc = ctypes.CDLL(None)
    return bool(libc.adjtimex(ctypes.create_string_buffer(_TIMEX_SIZE)) != _TIME_ERROR)


def _mounted(kind: str) -> list[str]:
    """Mount points of a file system type, from mountinfo: fields before " - " are the mount's, after it the file system's."""
    places = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, system = line.partition(" - ")
        if system.split(" ", 1)[0] == kind:
            places.append(mount.split(" ")[4])
    return places


def _version(text: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)
