"""Runs nft, iptables and their like in a pod's netns, by name, with a clean environment. Called by backends and probes."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from capture.errors import CommandFailedError, ToolMissingError
from capture.netns import NetnsRef, identity, run_in_netns

__all__ = ["Tools"]

_LOCKS = 256


@dataclass(frozen=True, slots=True)
class Tools:
    """Where the tools are found. One value serves all pods.

    ``search_path`` is a PATH; ``python`` runs the python-iptables child; ``lock_dir`` holds the xtables lock files: legacy
    iptables has one lock for the whole machine, and a pod shouldn't wait for the tables of another; ``timeout`` seconds a command.
    """

    search_path: str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    python: str = sys.executable
    lock_dir: str = "/run/ambient/capture"
    timeout: float = 30.0

    def find(self, name: str) -> str | None:
        """The path of a tool, or None when it is not installed."""
        return shutil.which(name, path=self.search_path)

    def run(self, netns: NetnsRef, name: str, *arguments: str, data: bytes = b"") -> bytes:
        """What the tool printed. Raises :class:`CommandFailedError` when it is missing or fails, with what it said."""
        path = name if name.startswith("/") else self.find(name)
        if path is None:
            raise ToolMissingError(f"{name} is not installed (looked in {self.search_path})")
        done = run_in_netns(netns, [path, *arguments], data=data, env=self._environment(netns), timeout=self.timeout)
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()[:600] or "it said nothing"
            raise CommandFailedError(f"{name} ended with status {done.returncode}: {said}")
        return done.stdout

    def lock_file(self, netns: NetnsRef) -> str:
        """The xtables lock of a netns: one of 256, so that files of ended pods don't pile up. Raises CommandFailedError."""
        inode = identity(netns)
        try:
            Path(self.lock_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CommandFailedError(f"the folder for lock files, {self.lock_dir}, cannot be made: {error.strerror}") from error
        return str(Path(self.lock_dir) / f"xtables-{(inode.dev ^ inode.ino) % _LOCKS:02x}.lock")

    def _environment(self, netns: NetnsRef) -> dict[str, str]:
        root = str(Path(__file__).resolve().parent.parent)
        environment = {"PATH": self.search_path, "LC_ALL": "C", "XTABLES_LOCKFILE": self.lock_file(netns), "PYTHONPATH": root}
        # python-iptables looks for the extensions' folder by itself; a machine that needs help has told our own environment.
        for name in ("XTABLES_LIBDIR", "IPTABLES_LIBDIR", "LD_LIBRARY_PATH"):
            if value := os.environ.get(name):
                environment[name] = value
        return environment
