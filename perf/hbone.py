"""Micro-benchmark of the HBONE session: what a received DATA frame and a stream's whole life cost, without TLS or sockets.

Run: ``python perf/hbone.py [--repeat N]``. The best of N runs is printed: the machine's noise only ever adds.
"""

import argparse
import time
from collections.abc import Callable

from ztunnel.hbone import events as ev
from ztunnel.hbone import frames as fr
from ztunnel.hbone.hpack import field, request_prefix
from ztunnel.hbone.limits import SessionLimits
from ztunnel.hbone.session import Session

_LIMITS = SessionLimits()
_EXTRA = field(b"baggage", b"k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=client,service.name=client")
_BLOCK = request_prefix(b"10.0.0.1:8080") + _EXTRA + field(b"traceparent", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-00")
_STREAMS = 32


def _pair() -> tuple[Session, Session, bytearray, bytearray]:
    """A client and a server past their SETTINGS, and what each has put."""
    to_server, to_client = bytearray(), bytearray()
    client = Session(_LIMITS, client=True, now=0.0, put=to_server.extend)
    server = Session(_LIMITS, client=False, now=0.0, put=to_client.extend)
    client.start()
    server.start()
    for _ in range(2):
        _pump(to_server, server)
        _pump(to_client, client)
    return client, server, to_server, to_client


def _pump(buffer: bytearray, session: Session) -> list[ev.Event]:
    data = bytes(buffer)
    buffer.clear()
    return session.receive(memoryview(data), 0.0)


def data(size: int) -> float:
    """Nanoseconds per DATA frame of ``size`` bytes, received 256 KiB at a time, on 32 streams in turn."""
    client, server, to_server, _ = _pair()
    for _ in range(_STREAMS):
        client.open(_BLOCK)
    _pump(to_server, server)
    count = max(1, (1 << 18) // (size + 9))
    batch = memoryview(b"".join(fr.header(size, fr.DATA, 0, 1 + 2 * (i % _STREAMS)) + bytes(size) for i in range(count)))
    rounds = max(1, 100_000 // count)
    spent = 0.0
    for _ in range(rounds):
        for stream in server.streams.values():
            stream.recv_window = _LIMITS.stream_window
        server.recv_window = _LIMITS.connection_window
        start = time.perf_counter()
        server.receive(batch, 0.0)
        spent += time.perf_counter() - start
    return spent / rounds / count * 1e9


def life(count: int = 20_000) -> float:
    """Microseconds for request, answer and both ENDs of one stream, both ends of the session together."""
    client, server, to_server, to_client = _pair()
    start = time.perf_counter()
    for _ in range(count):
        mine = client.open(_BLOCK)
        ((_, theirs, _),) = _pump(to_server, server)
        assert theirs is not None
        server.answer(theirs, 200, _EXTRA)
        _pump(to_client, client)
        client.end(mine)
        _pump(to_server, server)
        server.end(theirs)
        _pump(to_client, client)
    spent = time.perf_counter() - start
    assert not client.streams
    assert not server.streams
    return spent / count * 1e6


def _best(run: Callable[[], float], repeat: int) -> float:
    return min(run() for _ in range(repeat))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="cost of the HBONE session")
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    print(f"DATA of 100 B received   {_best(lambda: data(100), repeat):8.0f} ns")  # noqa: T201
    print(f"DATA of 16 KiB received  {_best(lambda: data(16384), repeat):8.0f} ns")  # noqa: T201
    print(f"stream life, both ends   {_best(life, repeat):8.1f} us")  # noqa: T201


if __name__ == "__main__":
    main()
