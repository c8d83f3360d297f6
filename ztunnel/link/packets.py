"""Messages to the control half as packets of at most MAX_PACKET bytes each. Pure; called by the data plane for all it sends.

Lists are cut where they do not fit: the batch of messages first, then what a message itself lists. Most batches are one packet and
cost one encoding. A single item that cannot fit (nothing of ours is that large) is left out and named, as a packet that the
other side cannot read would end the link, and the next control half would be sent the same again.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from ztunnel.link.messages import MAX_PACKET, Closed, Connections, Counters, DataHello, Refusals, UpMessage, encode

__all__ = ["packets"]


def packets(messages: Sequence[UpMessage], on_misfit: Callable[[UpMessage], None]) -> Iterator[bytes]:
    """``messages`` in order. ``on_misfit`` is told of each that fits no packet even alone and halved."""
    packet = encode(messages)
    if len(packet) <= MAX_PACKET:
        yield packet
        return
    if len(messages) > 1:
        half = len(messages) // 2
        parts = (messages[:half], messages[half:])
    else:
        halves = _halves(messages[0])
        if halves is None:
            on_misfit(messages[0])
            rest = _emptied(messages[0])
            if rest is not None:
                yield encode((rest,))
            return
        parts = ((halves[0],), (halves[1],))
    for part in parts:
        yield from packets(part, on_misfit)


def _halves(message: UpMessage) -> tuple[UpMessage, UpMessage] | None:
    """Two messages that say the same as one, or None where it lists at most one thing."""
    match message:
        case Closed():
            return _cut(message, ("records",), first={}, second={"dropped": 0})
        case Connections():
            return _cut(message, ("connections",), first={"last": False}, second={})
        case Counters():
            return _cut(message, ("live", "closed"), first={}, second={})
        case Refusals():
            return _cut(message, ("counts",), first={}, second={})
        case DataHello():
            return _cut(message, ("proxies", "identities"), first={"last": False}, second={})
        case _:
            return None


def _emptied(message: UpMessage) -> UpMessage | None:
    """What is left to say of a message whose one item does not fit: that a dump or a hello has ended, that a record is lost."""
    match message:
        case Closed():
            return Closed((), message.dropped + len(message.records))
        case Connections():
            return Connections(message.request, (), message.last)
        case DataHello():
            return msgspec.structs.replace(message, proxies=(), identities=())
        case _:
            return None


def _cut(
    message: UpMessage, names: tuple[str, ...], *, first: dict[str, Any], second: dict[str, Any]
) -> tuple[UpMessage, UpMessage] | None:
    lists = {name: getattr(message, name) for name in names}
    if sum(map(len, lists.values())) < 2:
        return None
    # Of one list the larger part comes first, of the next the smaller: of two lists of one, each message gets one.
    cuts = {name: (len(items) + (i + 1) % 2) // 2 for i, (name, items) in enumerate(lists.items())}
    replace: Any = msgspec.structs.replace
    return (
        replace(message, **{name: items[: cuts[name]] for name, items in lists.items()}, **first),
        replace(message, **{name: items[cuts[name] :] for name, items in lists.items()}, **second),
    )
