"""Outboxes are lent and come back empty; few are kept."""

from ztunnel.dataplane.buffers import _KEPT, OUTBOX, OutboxPool


def test_an_outbox_comes_back_empty() -> None:
    pool = OutboxPool()
    out = pool.take()
    assert (out.length, len(out.data), len(out.view)) == (0, OUTBOX, OUTBOX)
    out.length = 5
    assert pool.lent == 1
    pool.give(out)
    assert pool.lent == 0
    assert pool.take() is out
    assert out.length == 0


def test_two_lent_at_once_are_two() -> None:
    pool = OutboxPool()
    assert pool.take() is not pool.take()


def test_few_are_kept() -> None:
    pool = OutboxPool()
    lent = [pool.take() for _ in range(_KEPT + 3)]
    for out in lent:
        pool.give(out)
    assert len(pool._free) == _KEPT
    assert pool.lent == 0
