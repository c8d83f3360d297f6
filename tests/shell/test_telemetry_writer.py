"""The line writer: order, batches, bounds, a sink that is slow, broken or stuck."""

import os
import threading

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ztunnel.telemetry.writer import BATCH, FLUSH_SECONDS, LineWriter


async def test_lines_arrive_in_order_and_the_last_before_the_end() -> None:
    reader, sink = os.pipe()
    writer = LineWriter(sink)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        for n in range(100):
            assert writer.put(b"%d\n" % n)
        await wait_all_tasks_blocked()
        writer.put(b"last\n")
        nursery.cancel_scope.cancel()
    os.close(sink)
    assert os.read(reader, 65536).split() == [*(b"%d" % n for n in range(100)), b"last"]
    os.close(reader)


async def test_a_stuck_sink_costs_a_bounded_queue_and_lines_are_counted() -> None:
    go, batches = threading.Event(), []

    def write(data: bytes) -> None:
        assert go.wait(10)
        batches.append(data)

    writer = LineWriter(max_lines=10, max_bytes=1000, write=write)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        writer.put(b"first\n")
        await wait_all_tasks_blocked()
        assert [writer.put(b"x\n") for _ in range(12)] == [True] * 10 + [False] * 2
        go.set()
        nursery.cancel_scope.cancel()
    assert batches == [b"first\n", b"x\n" * 10]
    assert writer.dropped == 2


async def test_bytes_are_bounded_too_and_batches_are_small() -> None:
    batches: list[bytes] = []
    writer = LineWriter(max_bytes=3 * BATCH, write=batches.append)
    line = b"y" * (BATCH // 2 - 1) + b"\n"
    assert [writer.put(line) for _ in range(7)] == [True] * 6 + [False]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        nursery.cancel_scope.cancel()
    assert [len(batch) for batch in batches] == [BATCH] * 3


async def test_a_sink_that_fails_is_counted_and_tried_again() -> None:
    told: list[bytes] = []

    def write(data: bytes) -> None:
        told.append(data)
        if len(told) == 1:
            raise BrokenPipeError

    writer = LineWriter(write=write)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        writer.put(b"a\n")
        while writer.errors == 0:
            await trio.testing.wait_all_tasks_blocked()
        writer.put(b"b\n")
        nursery.cancel_scope.cancel()
    assert told == [b"a\n", b"b\n"]
    assert (writer.errors, writer.dropped) == (1, 1)


async def test_a_stuck_sink_does_not_keep_the_process(autojump_clock: MockClock) -> None:
    go = threading.Event()
    writer = LineWriter(write=lambda data: (go.wait(10), None)[1])
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        writer.put(b"a\n")
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    go.set()
    assert trio.current_time() - start == 1 + FLUSH_SECONDS


async def test_a_non_blocking_descriptor_is_waited_for() -> None:
    reader, sink = os.pipe()
    os.set_blocking(sink, False)
    data = b"z" * 300_000 + b"\n"
    writer = LineWriter(sink)
    writer.put(data)
    got = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        while len(got) < len(data):
            got += await trio.to_thread.run_sync(os.read, reader, 65536)
        nursery.cancel_scope.cancel()
    os.close(sink)
    os.close(reader)
    assert got == data
