"""What a demo leaves, looked for where it could be: namespaces, processes, files. Also the removal of what killed runs left."""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ambient.demo.scene import BASE
from ambient.lab.errors import LabUnknown
from ambient.lab.netns import NETNS_DIR
from ambient.lab.processes import find_marked
from ambient.lab.removal import Removed, remove
from ambient.lab.spec import check_lab_name
from ambient.lab.state import LabState
from ambient.lab.store import STATE_DIR, Store

__all__ = ["Left", "end_demo", "keep_logs", "look", "sweep"]


@dataclass(frozen=True, slots=True)
class Left:
    """Names of what is still there."""

    namespaces: tuple[str, ...]
    processes: tuple[str, ...]
    files: tuple[str, ...]


def look(state: LabState, directory: Path) -> Left:
    """Look for what is left of a lab and a demo's folder."""
    namespaces = [name for name in state.netns_names() if (NETNS_DIR / name).exists()]
    processes = [str(pid) for pid in find_marked(state.marker)]
    record = STATE_DIR / f"{state.name}.json"
    files = [str(path) for path in [record, *sorted(directory.glob("**/*")), directory] if path.exists()]
    return Left(tuple(namespaces), tuple(processes), tuple(files))


def keep_logs(directory: Path) -> None:
    """Remove everything but the logs: keys, sockets and state are of no use any more."""
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix != ".log":
            path.unlink()


def sweep() -> None:
    """Remove the folders of demos whose lab is gone: killed runs, failed ones whose logs were kept, `ambient lab down`."""
    store = Store()
    if not BASE.is_dir():
        return
    with store.locked():
        names = set(store.names())
        for path in BASE.iterdir():
            if path.name not in names and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            BASE.rmdir()  # only when it is empty


def end_demo(name: str) -> Removed:
    """End a demo that was kept: its processes, namespaces and files. Raises LabError."""
    if not (BASE / check_lab_name(name)).is_dir():
        raise LabUnknown(f"there is no demo {name!r}", "`ambient lab list` shows what there is; `ambient lab down` ends other labs")
    removed = remove(Store(), name)
    sweep()
    return removed
