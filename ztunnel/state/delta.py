"""What changed between two states, and the messages that carry it to the data plane. Pure; called by the control half.

Within one update the order is such that no moment is wider than both states: policies arrive before what they guard, removals of
workloads before the workloads that take over their addresses, removals of policies last.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Final, TypeVar

import msgspec

from policy.model import Authorization
from ztunnel.link.messages import MAX_BATCH, MAX_PACKET, DownMessage, Policies, Services, StateBegin, StateEnd, Workloads
from ztunnel.state.errors import ItemTooLargeError
from ztunnel.state.model import Service, Workload
from ztunnel.state.static import StaticState

__all__ = ["MAX_ITEM", "Changes", "diff", "messages"]

_OVERHEAD: Final = 64
"""Bytes that packet, message and list take around their items, generously."""
MAX_ITEM: Final = MAX_PACKET - _OVERHEAD
"""Bytes of one encoded workload, service or policy."""

_encode = msgspec.msgpack.Encoder().encode
_T = TypeVar("_T")
_K = TypeVar("_K", bound=Hashable)


class Changes(msgspec.Struct, frozen=True):
    """What to insert or replace, and the uids and keys of what is gone."""

    workloads_upsert: tuple[Workload, ...] = ()
    workloads_remove: tuple[str, ...] = ()
    services_upsert: tuple[Service, ...] = ()
    services_remove: tuple[str, ...] = ()
    policies_upsert: tuple[Authorization, ...] = ()
    policies_remove: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Nothing changed."""
        return self == Changes()


def diff(old: StaticState | None, new: StaticState) -> Changes:
    """What turns ``old`` into ``new``: only what differs. None: from nothing."""
    before = old if old is not None else StaticState()
    workloads = _changed(before.workloads, new.workloads, lambda w: w.uid)
    services = _changed(before.services, new.services, lambda s: s.key)
    policies = _changed(before.policies, new.policies, lambda p: str(p.key))
    return Changes(*workloads, *services, *policies)


def messages(changes: Changes, generation: int, full: bool) -> Iterator[DownMessage]:
    """StateBegin, the changes in slices of at most MAX_BATCH items and MAX_PACKET bytes encoded, StateEnd.

    Each message is to be sent as a packet of its own. ``full``: ``changes`` is the whole state, so nothing is removed by name.
    Raises ItemTooLargeError at the first call to the iterator's ``next``, before anything is given.
    """
    parts: list[DownMessage] = [Policies(upsert=part) for part in _slices(changes.policies_upsert, "policy", lambda p: str(p.key))]
    parts += [Services(upsert=part) for part in _slices(changes.services_upsert, "service", lambda s: s.key)]
    parts += [Workloads(upsert=part) for part in _slices(changes.workloads_upsert, "workload", lambda w: w.uid)]
    if not full:
        # After what takes their place: an address that nobody has for a moment would be passed to in the clear.
        parts += [Workloads(remove=part) for part in _slices(changes.workloads_remove, "workload", str)]
        parts += [Services(remove=part) for part in _slices(changes.services_remove, "service", str)]
        parts += [Policies(remove=part) for part in _slices(changes.policies_remove, "policy", str)]
    yield StateBegin(generation, full)
    yield from parts
    yield StateEnd(generation)


def _changed(old: Sequence[_T], new: Sequence[_T], key: Callable[[_T], _K]) -> tuple[tuple[_T, ...], tuple[_K, ...]]:
    before = {key(item): item for item in old}
    upsert = tuple(item for item in new if before.pop(key(item), None) != item)
    return upsert, tuple(before)


def _slices(items: Sequence[_T], kind: str, key: Callable[[_T], str]) -> Iterator[tuple[_T, ...]]:
    part: list[_T] = []
    size = 0
    for item in items:
        length = len(_encode(item))
        if length > MAX_ITEM:
            raise ItemTooLargeError(kind, key(item), length, MAX_ITEM)
        if part and (len(part) == MAX_BATCH or size + length > MAX_ITEM):
            yield tuple(part)
            part, size = [], 0
        part.append(item)
        size += length
    if part:
        yield tuple(part)
