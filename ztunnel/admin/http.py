"""A small HTTP/1.1 server connection: h11 for the protocol, trio for the bytes, everything bounded.

``serve_connection`` runs one connection and never raises for what a client does. Called by
:mod:`ztunnel.admin.server`; tests give it memory streams.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import h11
import trio

from ztunnel.admin.message import Request, Response, Routes, text
from ztunnel.telemetry.log import get_logger

__all__ = ["DEFAULT_LIMITS", "Limits", "serve_connection"]

_log = get_logger("admin")
_RECEIVE = 16 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and seconds. ``header``: request line and headers (ztunnel's figure). ``idle``: between two requests."""

    header: int = 8 * 1024
    body: int = 64 * 1024
    header_seconds: float = 2.0
    body_seconds: float = 10.0
    idle_seconds: float = 5.0
    send_seconds: float = 30.0


DEFAULT_LIMITS: Final = Limits()


class _Refused(Exception):
    """The request is answered before it is a request; the connection ends with it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def serve_connection(stream: trio.abc.Stream, routes: Routes, limits: Limits = DEFAULT_LIMITS) -> None:
    """Answer requests until the client goes away, breaks a rule or exceeds a limit."""
    async with stream:
        try:
            await _Connection(stream, routes, limits).run()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, h11.RemoteProtocolError):
            pass  # the client is gone, stuck or does not speak HTTP: nobody is left to tell


class _Connection:
    def __init__(self, stream: trio.abc.Stream, routes: Routes, limits: Limits) -> None:
        self._stream, self._routes, self._limits = stream, routes, limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.header)

    async def run(self) -> None:
        wait = self._limits.header_seconds
        while True:
            try:
                request = await self._request(wait)
            except _Refused as refused:
                await self._respond(text(refused.status, f"{refused}\n", ("Connection", "close")), "GET")
                return
            except h11.RemoteProtocolError as error:
                if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                    status = error.error_status_hint
                    message = f"headers over {self._limits.header} bytes" if status == 431 else str(error)
                    await self._respond(text(status, f"bad request: {message}\n", ("Connection", "close")), "GET")
                return
            if request is None:
                return
            await self._respond(await self._answer(request), request.method)
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()
            wait = self._limits.idle_seconds

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._routes.answer(request)
        except ValueError as error:
            return text(400, f"bad request: {error}\n")
        except Exception:  # noqa: BLE001  # one request's fault is its own; the trace is in the log
            _log.exception("request failed", method=request.method, path=request.path)
            return text(500, "internal error of the proxy; its log has the trace\n")

    async def _request(self, seconds: float) -> Request | None:
        """The next request; None when the client is done or too slow to be worth an answer."""
        head: object = None
        with trio.move_on_after(seconds):
            head = await self._event()
        if not isinstance(head, h11.Request):
            return None
        with trio.fail_after(self._limits.body_seconds):
            body = await self._body()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        return Request(head.method.decode("ascii"), head.target.decode("latin-1"), headers, body)

    async def _body(self) -> bytes:
        parts, size = [], 0
        if self._http.they_are_waiting_for_100_continue:
            await self._send(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
        while isinstance(event := await self._event(), h11.Data):
            size += len(event.data)
            if size > self._limits.body:
                raise _Refused(413, f"request body over {self._limits.body} bytes")
            parts.append(bytes(event.data))
        return b"".join(parts)

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(bytes(await self._stream.receive_some(_RECEIVE)))
        return event

    async def _respond(self, response: Response, method: str) -> None:
        headers = [
            ("Content-Type", response.content_type),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            *response.headers,
        ]
        if isinstance(response.body, bytes):
            headers.append(("Content-Length", str(len(response.body))))
        reason = HTTPStatus(response.status).phrase
        data = self._http.send(h11.Response(status_code=response.status, headers=headers, reason=reason)) or b""
        if method == "HEAD":
            await self._send(data)
        elif isinstance(response.body, bytes):
            await self._send(data + (self._http.send(h11.Data(data=response.body)) or b""))
        else:
            await self._send(data)
            await self._stream_body(response.body)
        await self._send(self._http.send(h11.EndOfMessage()))

    async def _stream_body(self, body: AsyncGenerator[bytes, None]) -> None:
        async with aclosing(body) as pieces:
            async for piece in pieces:
                if piece:
                    await self._send(self._http.send(h11.Data(data=piece)))

    async def _send(self, data: bytes | None) -> None:
        if data:
            with trio.fail_after(self._limits.send_seconds):
                await self._stream.send_all(data)
