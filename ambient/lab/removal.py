"""Taking labs away: one by name, and the leftovers of killed runs. Used by ``Lab`` and by ``ambient lab down``."""

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from ambient.lab.errors import LabBroken, LabBusy, LabError, LabUnknown
from ambient.lab.netns import NETNS_DIR, delete_namespaces, entered, namespace_inode
from ambient.lab.processes import TERM_GRACE, end_marked, is_alive, same_boot, strangers
from ambient.lab.state import NETNS_PREFIX, LabState, Owner
from ambient.lab.store import Store

__all__ = ["Removed", "demolish", "is_stale", "remove", "remove_stale"]


@dataclass(frozen=True, slots=True)
class Removed:
    """What was taken away. ``left`` are processes that the lab did not start and that keep a nameless namespace alive."""

    name: str
    namespaces: int
    left: tuple[tuple[int, str], ...] = ()


def is_stale(state: LabState) -> bool:
    """Is nobody answerable for this lab? Persistent ones are stale after a reboot only."""
    if not same_boot(state.owner):
        return True
    return not state.persistent and not is_alive(state.owner)


def demolish(state: LabState, *, grace: float = TERM_GRACE) -> Removed:
    """End the processes the lab started, then remove its namespaces. The state file stays: delete it after.

    Raises :class:`LabBroken` if a process cannot be ended even by SIGKILL; the namespaces are gone by then all the same.
    """
    stuck = end_marked(state.marker, grace=grace)
    inodes = [inode for name in state.netns_names() if (inode := namespace_inode(name)) is not None]
    left = tuple(strangers(inodes))
    delete_namespaces(state.netns_names())
    if stuck:
        raise LabBroken(
            f"processes {', '.join(map(str, stuck))} of lab {state.name} do not end",
            "see what the kernel holds them in: ps -o wchan",
        )
    return Removed(state.name, len(inodes), left)


def remove(store: Store, name: str, *, force: bool = False) -> Removed:
    """Remove one lab, whoever made it. One that a live process owns needs ``force``."""
    with store.locked():
        state = store.load(name)
        if state is None:
            raise LabUnknown(f"there is no lab {name!r}", "`ambient lab list` shows those there are")
        if not state.persistent and is_alive(state.owner) and not force:
            raise LabBusy(f"lab {name} belongs to process {state.owner.pid}, which still runs", "end that process, or give --force")
        removed = demolish(state)
        store.delete(name)
        return removed


def remove_stale(store: Store) -> list[Removed]:
    """Remove what killed runs left: labs whose owner is dead, then namespaces whose state file is lost."""
    with store.locked():
        removed = []
        for name in store.names():
            try:
                state = store.load(name)
            except LabError:
                # Not ours to guess about; `ambient lab list` shows it. One bad file must not keep all labs from being made.
                continue
            if state is not None and is_stale(state):
                removed.append(demolish(state, grace=0))
                store.delete(name)
        return removed + _remove_orphans(store.names())


def _remove_orphans(known: Iterable[str]) -> list[Removed]:
    prefixes = tuple(f"{NETNS_PREFIX}{name}{joint}" for name in known for joint in "-.")
    try:
        names = [path.name for path in NETNS_DIR.iterdir() if path.name.startswith(NETNS_PREFIX)]
    except FileNotFoundError:
        return []
    orphans: dict[tuple[str, str], list[str]] = {}
    for name in names:
        if not name.startswith(prefixes) and (mark := _read_mark(name)) is not None and not is_alive(mark[2]):
            orphans.setdefault(mark[:2], []).append(name)
    removed = []
    for (lab, token), namespaces in orphans.items():
        end_marked(f"{lab}/{token}", grace=0)
        delete_namespaces(namespaces)
        removed.append(Removed(lab, len(namespaces)))
    return removed


def _read_mark(name: str) -> tuple[str, str, Owner] | None:
    """Lab, token and owner from the alias of ``lo``; None for a namespace that no lab has made."""
    try:
        with entered(NETNS_DIR / name):
            child = subprocess.Popen(["ip", "-json", "link", "show", "lo"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        with child:
            links = json.loads(child.communicate()[0])
        kind, lab, token, pid, start, boot, pid_namespace = links[0]["ifalias"].split(":")
        owner = Owner(pid=int(pid), start_ticks=int(start), boot_id=boot, pid_namespace=int(pid_namespace))
    except (LabError, OSError, ValueError, LookupError, AttributeError):
        return None
    return (lab, token, owner) if kind == "ambient-lab" else None
