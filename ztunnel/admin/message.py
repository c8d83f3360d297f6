"""Requests, responses and the table of routes between them. Pure.

A handler is an async function from request to response; a response's body is bytes or an async generator of pieces.
"""

import urllib.parse
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["ANY", "Handler", "Request", "Response", "Routes", "text"]

ANY: Final = "*"
"""Method of a route that takes every method."""
_MAX_PARAMETERS = 20


@dataclass(frozen=True, slots=True)
class Request:
    """``headers``: names in lower case, the last value of a repeated one. ``body``: at most the server's limit."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target before ``?``."""
        return self.target.partition("?")[0]

    def query(self) -> dict[str, str]:
        """Parameters after ``?``, the last of repeated ones. Raises ValueError when there are more than 20."""
        pairs = urllib.parse.parse_qsl(self.target.partition("?")[2], keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
        return dict(pairs)


@dataclass(frozen=True, slots=True)
class Response:
    """``content_type`` is sent as it is; ``headers`` come after it."""

    status: int
    body: bytes | AsyncGenerator[bytes, None]
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Awaitable[Response]]
Guard = Callable[[Request], Response | None]


def text(status: int, body: str, *headers: tuple[str, str]) -> Response:
    """A plain-text response."""
    return Response(status, body.encode("utf-8", "replace"), headers=headers)


class Routes:
    """Exact paths, each with its methods, and a guard that is asked first (None: go on)."""

    def __init__(self, guard: Guard | None = None) -> None:
        self._guard = guard
        self._paths: dict[str, dict[str, Handler]] = {}

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Serve ``path``. A GET route answers HEAD too."""
        self._paths.setdefault(path, {})[method] = handler

    async def answer(self, request: Request) -> Response:
        """The response to ``request``; unknown paths get 404 with what exists, wrong methods 405."""
        refused = self._guard(request) if self._guard else None
        if refused is not None:
            return refused
        methods = self._paths.get(request.path)
        if methods is None:
            return text(404, f"nothing at this path; there is:\n{''.join(f'  {path}{chr(10)}' for path in sorted(self._paths))}")
        method = "GET" if request.method == "HEAD" else request.method
        handler = methods.get(method) or methods.get(ANY)
        if handler is None:
            allowed = ", ".join(sorted(methods))
            return text(405, f"{request.path} takes {allowed} only\n", ("Allow", allowed))
        return await handler(request)
