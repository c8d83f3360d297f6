"""The state files of all labs of this machine, and the one lock over them.

A file is replaced atomically. Whoever claims a name, sweeps leftovers or removes a lab holds the lock; building a
lab does not need it, as its file is there before its first namespace.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ambient.lab.errors import LabBroken, LabError, LabUnsupported
from ambient.lab.spec import check_lab_name
from ambient.lab.state import LabState, decode_state, encode_state

__all__ = ["STATE_DIR", "Store"]

STATE_DIR = Path("/run/ambient/lab")
_MAX_BYTES = 64 * 1024 * 1024
"""A state file larger than this is not ours: 245 nodes of 1 000 pods take 50 MiB."""


class Store:
    """State files under ``directory``, made when needed, for root only."""

    def __init__(self, directory: Path = STATE_DIR) -> None:
        self.directory = directory

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Exclude every other process and thread that uses this store. Not to be nested."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError as error:
            raise LabUnsupported(f"cannot write {self.directory}", "run as root") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _path(self, name: str) -> Path:
        return self.directory / f"{check_lab_name(name)}.json"

    def names(self) -> list[str]:
        """Names of all labs that have a file, sorted; files that cannot be a lab's are passed over."""
        found = []
        for path in self.directory.glob("*.json"):
            try:
                found.append(check_lab_name(path.stem))
            except LabError:
                continue
        return sorted(found)

    def load(self, name: str) -> LabState | None:
        """The lab's record, None if there is none. Raises :class:`LabBroken` for a file that cannot be trusted."""
        try:
            with self._path(name).open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise LabUnsupported(f"cannot read {self._path(name)}", "run as root") from error
        if len(data) > _MAX_BYTES:
            raise LabBroken(f"the state file of lab {name!r} is larger than {_MAX_BYTES} bytes", "remove it by hand")
        return decode_state(data, name)

    def save(self, state: LabState) -> None:
        path = self._path(state.name)
        self.directory.mkdir(parents=True, exist_ok=True)
        # The name of the temporary file ends neither in .json nor in what another writer may take.
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(encode_state(state))
        os.replace(temporary, path)

    def delete(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)
