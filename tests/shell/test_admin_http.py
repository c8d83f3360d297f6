"""The HTTP server: dialogues over memory streams, limits by the virtual clock."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress

import h11
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from ztunnel.admin.http import DEFAULT_LIMITS, serve_connection
from ztunnel.admin.message import ANY, Request, Response, Routes, text

Answer = tuple[int, dict[str, str], bytes]


async def echo(request: Request) -> Response:
    return text(200, f"{request.method} {sorted(request.query().items())} {request.body.decode()}")


async def broken(request: Request) -> Response:
    raise RuntimeError("told in the log only")


async def streamed(request: Request) -> Response:
    async def pieces() -> AsyncGenerator[bytes, None]:
        for part in (b"one ", b"", b"two"):
            yield part

    return Response(200, pieces())


def routes() -> Routes:
    table = Routes()
    table.add(ANY, "/echo", echo)
    table.add("GET", "/streamed", streamed)
    table.add("GET", "/broken", broken)
    return table


async def talk(sent: bytes, requests: str = "G") -> list[Answer]:
    """Send bytes, then FIN, and read the answers; ``requests``: one letter each, H for HEAD."""
    client, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, server, routes())
        await client.send_all(sent)
        await client.send_eof()
        data = b""
        while part := await client.receive_some(65536):
            data += part
    answers = []
    for method in requests:
        http = h11.Connection(h11.CLIENT)
        http.send(h11.Request(method="HEAD" if method == "H" else "GET", target="/", headers=[("Host", "x")]))
        http.send(h11.EndOfMessage())
        http.receive_data(data)
        head = http.next_event()
        while isinstance(head, h11.InformationalResponse):
            head = http.next_event()
        assert isinstance(head, h11.Response)
        body = b""
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                body += event.data
            else:
                http.receive_data(b"")  # the end of the connection ends the body
        answers.append((head.status_code, {k.decode(): v.decode() for k, v in head.headers}, body))
        data = http.trailing_data[0]
    assert data == b""
    return answers


async def test_get_with_query() -> None:
    [(status, headers, body)] = await talk(b"GET /echo?a=1&b=%20x&reset HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, body) == (200, b"GET [('a', '1'), ('b', ' x'), ('reset', '')] ")
    assert headers["content-length"] == str(len(body))


async def test_post_with_body_and_keep_alive() -> None:
    one = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
    answers = await talk(one + one + b"GET /streamed HTTP/1.1\r\nHost: x\r\n\r\n", "GGG")
    assert [body for _, _, body in answers] == [b"POST [] hi", b"POST [] hi", b"one two"]


async def test_http_1_0_gets_a_body_that_ends_with_the_connection() -> None:
    [(status, headers, body)] = await talk(b"GET /streamed HTTP/1.0\r\n\r\n")
    assert (status, body) == (200, b"one two")
    assert "transfer-encoding" not in headers


async def test_head_has_no_body() -> None:
    answers = await talk(b"HEAD /echo HTTP/1.1\r\nHost: x\r\n\r\nHEAD /streamed HTTP/1.1\r\nHost: x\r\n\r\n", "HH")
    assert [(status, body) for status, _, body in answers] == [(200, b""), (200, b"")]


async def test_expect_100_continue() -> None:
    sent = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nhi"
    assert (await talk(sent))[0][2] == b"POST [] hi"


async def test_unknown_path_lists_what_there_is() -> None:
    [(status, _, body)] = await talk(b"GET /debug/pprof/heap HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == 404
    assert body == b"nothing at this path; there is:\n  /broken\n  /echo\n  /streamed\n"


async def test_wrong_method() -> None:
    [(status, headers, _)] = await talk(b"POST /streamed HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    assert (status, headers["allow"]) == (405, "GET")


async def test_a_fault_of_ours_is_500_and_the_next_request_works() -> None:
    answers = await talk(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\nGET /echo HTTP/1.1\r\nHost: x\r\n\r\n", "GG")
    assert [status for status, _, _ in answers] == [500, 200]
    assert b"told" not in answers[0][2]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /echo HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000, 431),
        (b"GET /" + b"a" * 9000, 431),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /echo HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n" + b"a" * 99999, 413),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: x\r\n\r\n", 501),
        (b"GET /echo?" + b"a=1&" * 21 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ],
)
async def test_bad_requests(sent: bytes, status: int) -> None:
    [(got, _, _)] = await talk(sent)
    assert got == status


async def lifetime(client_does: Callable[[trio.abc.Stream], Awaitable[None]]) -> float:
    """Seconds until the server lets go."""
    client, server = memory_stream_pair()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await serve_connection(server, routes())
            nursery.cancel_scope.cancel()

        nursery.start_soon(serve)
        with suppress(trio.BrokenResourceError):  # let go between two bytes
            await client_does(client)
        await trio.sleep_forever()
    return trio.current_time() - start


async def test_silent_and_slow_clients_are_let_go(autojump_clock: MockClock) -> None:
    async def silent(client: trio.abc.Stream) -> None:
        pass

    async def slow(client: trio.abc.Stream) -> None:
        for byte in b"GET /echo HTTP/1.1\r\n":
            await client.send_all(bytes([byte]))
            await trio.sleep(0.5)

    async def idle(client: trio.abc.Stream) -> None:
        await client.send_all(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")

    async def slow_body(client: trio.abc.Stream) -> None:
        await client.send_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")

    assert await lifetime(silent) == DEFAULT_LIMITS.header_seconds
    assert await lifetime(slow) == DEFAULT_LIMITS.header_seconds
    assert await lifetime(idle) == DEFAULT_LIMITS.idle_seconds
    assert await lifetime(slow_body) == DEFAULT_LIMITS.body_seconds


async def test_a_client_that_does_not_read_is_let_go(autojump_clock: MockClock) -> None:
    client, server = trio.testing.lockstep_stream_pair()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_connection, server, routes())
        await client.send_all(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
    assert trio.current_time() - start == DEFAULT_LIMITS.send_seconds
