"""Buffers that belong to the loop and are lent for a batch, so that an idle connection or tunnel owns none."""

from typing import Final

from ztunnel.hbone.tls import pointer

__all__ = ["OUTBOX", "Outbox", "OutboxPool"]

OUTBOX: Final = 1 << 20
"""Bytes of plaintext queued for one tunnel in one batch."""
_KEPT: Final = 4


class Outbox:
    """Plaintext of one tunnel: ``length`` bytes of ``data`` are used."""

    __slots__ = ("at", "data", "length", "view")

    def __init__(self) -> None:
        self.data = bytearray(OUTBOX)
        self.view = memoryview(self.data)
        self.at = pointer(self.data)
        self.length = 0


class OutboxPool:
    """Lends outboxes; a few are kept, as a batch rarely touches more tunnels at once."""

    def __init__(self) -> None:
        self._free: list[Outbox] = []
        self.lent = 0

    def take(self) -> Outbox:
        """An empty outbox."""
        self.lent += 1
        return self._free.pop() if self._free else Outbox()

    def give(self, outbox: Outbox) -> None:
        """Take it back."""
        self.lent -= 1
        outbox.length = 0
        if len(self._free) < _KEPT:
            self._free.append(outbox)
