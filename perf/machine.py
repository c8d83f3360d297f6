"""What the figures were measured on: goes into every result, as absolute figures mean nothing without it."""

import os
import platform
import subprocess
from pathlib import Path

import msgspec
from OpenSSL import SSL

__all__ = ["Machine", "commit", "cpu_model", "facts"]


class Machine(msgspec.Struct, frozen=True):
    """``commit`` ends in ``+`` when the tree has changes that are not committed."""

    kernel: str
    cpu: str
    cores: int
    memory_mib: int
    python: str
    openssl: str
    commit: str


def cpu_model(cpuinfo: str) -> str:
    """The first "model name" of /proc/cpuinfo; other architectures than x86 have none."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "unknown"


def commit(root: Path) -> str:
    """Of the checkout at ``root``, or "unknown"."""
    git = ["git", "-c", f"safe.directory={root}", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        status = [*git, "status", "--porcelain", "--untracked-files=no"]
        changed = subprocess.run(status, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + ("+" if changed else "")


def facts(root: Path) -> Machine:
    """Of this machine, now."""
    return Machine(
        kernel=platform.release(),
        cpu=cpu_model(Path("/proc/cpuinfo").read_text()),
        cores=len(os.sched_getaffinity(0)),
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        openssl=SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode(),
        commit=commit(root),
    )
