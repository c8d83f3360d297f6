"""Memory of each node's proxy with no connection and with some thousands that do nothing. Taken first, on fresh proxies.

PSS is what the target is on. What a connection costs is taken from memory "alone" (see ``procfs.alone``), which does not move
when another process of the machine comes or goes.
"""

import select
import subprocess
import time
from typing import Any, Final

import msgspec

from perf.errors import LoadFailed
from perf.side import Side

__all__ = ["each", "key", "measure"]

_SETTLE: Final = 1.5
"""Seconds until buffers that belong to the opening are given back, and the once-a-second counters are through."""
_PATIENCE: Final = 60.0
"""Seconds for all connections to open, or to answer once."""


class _Said(msgspec.Struct):
    open: int = 0
    alive: int = 0


def key(count: int) -> str:
    """Of the figure for that many connections: the one the target is on has no number."""
    return "each" if count == 10_000 else f"each_{count}"


def each(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]], count: int) -> float:
    """Bytes for each of ``count`` connections on the node where they cost more; arguments are of ``Side.memory``."""
    return max((after[node][1] - before[node][1]) / count for node in before)


def _mib(memory: dict[str, tuple[int, int]], kind: int) -> float:
    return max(sizes[kind] for sizes in memory.values()) / (1 << 20)


def _hear(process: "subprocess.Popen[str]") -> _Said:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _PATIENCE)
    line = process.stdout.readline() if ready else ""
    if not line:
        raise LoadFailed(f"idle connections: no answer within {_PATIENCE:g} s", "see the proxies' logs")
    return msgspec.json.decode(line, type=_Said)


def _with(side: Side, count: int) -> dict[str, tuple[int, int]]:
    """Memory with ``count`` idle connections, every one of which carried a byte before and carries one after."""
    process: subprocess.Popen[Any] = side.hold(count)
    assert process.stdin is not None
    try:
        opened = _hear(process).open
        if opened != count:
            raise LoadFailed(f"{opened} of {count} idle connections opened", "see the proxies' logs; file descriptors?")
        time.sleep(_SETTLE)
        memory = side.memory()
        process.stdin.write("all alive?\n")
        process.stdin.flush()
        if (alive := _hear(process).alive) != count:
            raise LoadFailed(f"{alive} of {count} idle connections were alive after {_SETTLE} s", "see the proxies' logs")
        return memory
    finally:
        process.kill()
        process.wait()


def measure(side: Side, counts: tuple[int, ...]) -> dict[str, float]:
    """Figures of the node that takes more, MiB and bytes."""
    time.sleep(_SETTLE)
    base = side.memory()
    values = {"memory": _mib(base, 0), "alone": _mib(base, 1)}
    for count in counts:
        held = _with(side, count)
        values[f"memory_{count}"] = _mib(held, 0)
        values[key(count)] = each(base, held, count)
        time.sleep(_SETTLE)
    return values
