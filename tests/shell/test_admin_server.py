"""The three ports with their routes, over loopback sockets."""

import gzip
import json
import socket

import msgspec
import pytest
import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ztunnel.admin.dump import DumpParts
from ztunnel.admin.errors import BindError
from ztunnel.admin.message import Request, Response, Routes
from ztunnel.admin.readiness import TASKS, Readiness, readiness_routes
from ztunnel.admin.routes import DUMP_SECONDS, admin_routes
from ztunnel.admin.server import Port, bind, serve
from ztunnel.admin.stats import stats_routes
from ztunnel.link.messages import Counters, Party, SeriesDef
from ztunnel.telemetry.log import LogControl
from ztunnel.telemetry.metrics import MetricStore
from ztunnel.telemetry.process import update_process


class Source:
    """A dump of one workload; ``hang``: the data plane does not answer."""

    def __init__(self, *, hang: bool = False) -> None:
        self.hang = hang

    async def dump_parts(self) -> DumpParts:
        if self.hang:
            await trio.sleep_forever()
        return DumpParts(workloads=[{"uid": "w"}])


async def body_of(response: Response) -> bytes:
    if isinstance(response.body, bytes):
        return response.body
    return b"".join([part async for part in response.body])


def admin(control: LogControl, *, hang: bool = False, stopped: list[str] | None = None) -> Routes:
    async def stop() -> None:
        if stopped is not None:
            stopped.append("drained")

    return admin_routes(Source(hang=hang), control, stop)


async def ask(routes: Routes, method: str, target: str, **headers: str) -> tuple[int, str]:
    response = await routes.answer(Request(method, target, {name.replace("_", "-"): value for name, value in headers.items()}))
    return response.status, (await body_of(response)).decode()


async def test_logging_has_the_semantics_of_ztunnel() -> None:
    routes = admin(LogControl("warn"))
    assert await ask(routes, "POST", "/logging") == (200, "current log level is warn\n")
    assert await ask(routes, "POST", "/logging?level=debug") == (200, "current log level is debug\n")
    assert await ask(routes, "POST", "/logging?level=access%3Doff,ztunnel::xds=trace") == (
        200,
        "current log level is access=off,xds=trace,debug\n",
    )
    assert await ask(routes, "POST", "/logging?reset&level=xds=info") == (200, "current log level is xds=info,warn\n")
    assert await ask(routes, "POST", "/logging?reset") == (200, "current log level is warn\n")
    status, told = await ask(routes, "POST", "/logging?level=loud=")
    assert status == 400
    assert told.startswith("Invalid level provided: ")
    status, told = await ask(routes, "GET", "/logging")
    assert status == 405
    assert told.startswith("Invalid HTTP method\n")


async def test_dump_quit_index_and_guard() -> None:
    stopped: list[str] = []
    routes = admin(LogControl(), stopped=stopped)
    status, dump = await ask(routes, "GET", "/config_dump", host="localhost:15000")
    assert (status, json.loads(dump)["workloads"]) == (200, [{"uid": "w"}])
    assert (await ask(routes, "GET", "/quitquitquit"))[0] == 405
    assert (await ask(routes, "POST", "/quitquitquit", host="evil.example"))[0] == 403
    assert stopped == []
    assert await ask(routes, "POST", "/quitquitquit") == (200, "shutdown now\n")
    assert stopped == ["drained"]
    assert "config_dump" in (await ask(routes, "GET", "/"))[1]
    assert (await ask(routes, "GET", "/debug/pprof/heap"))[0] == 404


async def test_a_dump_does_not_wait_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    start = trio.current_time()
    status, told = await ask(admin(LogControl(), hang=True), "GET", "/config_dump")
    assert (status, trio.current_time() - start) == (504, DUMP_SECONDS)
    assert "data plane" in told


async def test_readiness() -> None:
    readiness = Readiness()
    routes = readiness_routes(readiness)
    readiness.done("proxy")
    told = "not ready, pending: state manager, workload proxy manager\n"
    assert await ask(routes, "GET", "/healthz/ready") == (500, told)
    for task in TASKS:
        readiness.done(task)
    assert await ask(routes, "GET", "/healthz/ready") == (200, "ready\n")


async def test_scrape_zipped_leaves_the_loop_to_others() -> None:
    store = MetricStore()
    base = SeriesDef(1, "source", Party(), Party(), "", "unknown", "tunnel")
    for n in range(1, 2001):
        store.define(msgspec.structs.replace(base, id=n, source=Party(workload=f"w{n}")))
    store.counters(Counters(((1, 1, 2, 3),), ()))
    routes = stats_routes(store, lambda: update_process(store.registry))
    response = await routes.answer(
        Request("GET", "/stats/prometheus", {"accept": "application/openmetrics-text", "accept-encoding": "gzip"})
    )
    assert response.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        packed = await body_of(response)
        nursery.cancel_scope.cancel()
    assert turns >= 60
    families = {family.name: family for family in text_string_to_metric_families(gzip.decompress(packed).decode())}
    assert len(families["istio_tcp_connections_opened"].samples) == 2000
    assert families["process_open_fds"].samples[0].value > 0


async def test_ports_are_bound_on_loopback_or_everywhere() -> None:
    admin_port = bind(Port("admin", 0, "proxyAdminPort", loopback=True))
    stats_port = bind(Port("metrics", 0, "statsPort"))
    v4_only = bind(Port("metrics", 0, "statsPort"), ipv6=False)
    try:
        assert {listener.socket.getsockname()[0] for listener in admin_port} <= {"127.0.0.1", "::1"}
        assert len({listener.socket.getsockname()[1] for listener in admin_port}) == 1
        assert [listener.socket.getsockname()[0] for listener in stats_port] == ["::" if socket.has_dualstack_ipv6() else "0.0.0.0"]
        assert v4_only[0].socket.getsockname()[0] == "0.0.0.0"
        taken = admin_port[0].socket.getsockname()[1]
        with pytest.raises(BindError, match=rf"127.0.0.1:{taken} for admin: Address already in use; .* set another port with X"):
            bind(Port("admin", taken, "X", loopback=True))
    finally:
        for listener in (*admin_port, *stats_port, *v4_only):
            listener.socket.close()


async def test_connections_beyond_the_limit_get_503_and_room_comes_back() -> None:
    listeners = bind(Port("readiness", 0, "-"), ipv6=False)
    address = ("127.0.0.1", listeners[0].socket.getsockname()[1])

    async def get(stream: trio.SocketStream) -> bytes:
        await stream.send_all(b"GET /healthz/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return b"".join([part async for part in stream])

    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: serve(listeners, readiness_routes(Readiness(())), max_connections=1, task_status=task_status)
        )
        first = await trio.open_tcp_stream(*address)
        await first.send_all(b"GET /healthz/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await first.receive_some(4096)).startswith(b"HTTP/1.1 200 ")
        second = await trio.open_tcp_stream(*address)
        assert (await second.receive_some(4096)).startswith(b"HTTP/1.1 503 ")
        await first.aclose()
        await trio.testing.wait_all_tasks_blocked()
        third = await trio.open_tcp_stream(*address)
        assert (await get(third)).endswith(b"\r\n\r\nready\n")
        await second.aclose()
        await third.aclose()
        nursery.cancel_scope.cancel()
