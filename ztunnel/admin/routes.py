"""The routes of the admin port: dump, log level, shutdown. Semantics and texts are ztunnel's.

Shell only in that a dump is awaited; composed by the control half, served by :mod:`ztunnel.admin.server`.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

import trio

from ztunnel.admin.dump import DumpSource, assemble, encode_slices
from ztunnel.admin.guard import loopback_only
from ztunnel.admin.message import ANY, Request, Response, Routes, text
from ztunnel.telemetry.filter import is_level
from ztunnel.telemetry.log import LogControl

__all__ = ["DUMP_SECONDS", "admin_routes"]

DUMP_SECONDS: Final = 15.0
"""How long a dump waits for the data plane's connections."""
_PIECE = 64 * 1024
_HELP: Final = """
usage: POST /logging                                      (show the level)
usage: POST /logging?level=<level>                        (set the level of everything)
usage: POST /logging?level=<mod1>=<level1>,<mod2>=<level2>  (set the level of modules)
usage: POST /logging?reset                                (back to the start's; then &level=... if given)

levels: error, warn, info, debug, trace, off
modules: access, admin, dataplane, identity, xds, zds and the like, also as ztunnel::xds
"""
_INDEX: Final = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>ztunnel</title>
<style>body{font:1rem/1.5 sans-serif;margin:2rem auto;max-width:45rem}td{padding:.2rem 1rem .2rem 0;vertical-align:top}</style>
<h1>ztunnel</h1><table>
<tr><td><a href="config_dump">/config_dump</a></td><td>everything the proxy knows, as JSON</td></tr>
<tr><td>POST /logging</td><td>show or change the log level:
<code>?level=info</code>, <code>?level=access=off</code>, <code>?reset</code></td></tr>
<tr><td>POST /quitquitquit</td><td>drain and stop</td></tr>
</table><p>Metrics are on port 15020 at /metrics, readiness on port 15021 at /healthz/ready. From a shell:
<code>ztunnel workloads</code>, <code>ztunnel connections</code>, <code>ztunnel --help</code>.</p></html>
"""


def admin_routes(source: DumpSource, log: LogControl, quit: Callable[[], Awaitable[None]]) -> Routes:
    """Routes of the admin port. ``quit`` starts the drain and returns at its end."""

    async def index(request: Request) -> Response:
        return Response(200, _INDEX, "text/html; charset=utf-8")

    async def config_dump(request: Request) -> Response:
        try:
            with trio.fail_after(DUMP_SECONDS):
                parts = await source.dump_parts()
        except (trio.TooSlowError, TimeoutError):
            return text(504, "the data plane did not answer; is it overloaded? The log of the proxy says more\n")
        return Response(200, _pieces(assemble(parts)), "application/json")

    async def logging(request: Request) -> Response:
        return _logging(request, log)

    async def stop(request: Request) -> Response:
        await quit()
        return text(200, "shutdown now\n")

    routes = Routes(loopback_only)
    routes.add(ANY, "/", index)
    routes.add(ANY, "/config_dump", config_dump)
    routes.add(ANY, "/logging", logging)
    routes.add("POST", "/quitquitquit", stop)
    return routes


def _logging(request: Request, log: LogControl) -> Response:
    if request.method != "POST":
        return text(405, f"Invalid HTTP method\n{_HELP}", ("Allow", "POST"))
    query = request.query()
    level, reset = query.get("level", ""), "reset" in query
    if level or reset:
        unknown = [part for part in level.split(",") if part.strip() and "=" not in part and ":" not in part and not is_level(part)]
        if unknown:  # in RUST_LOG a lone target means trace; here it is a slip of the hand
            return text(400, f"Invalid level provided: {unknown[0]!r} is no level\n{_HELP}")
        problems = log.change(level, reset=reset)
        if problems:
            return text(400, f"Invalid level provided: {'; '.join(problems)}\n{_HELP}")
    return text(200, f"current log level is {log.filter}\n")


async def _pieces(dump: dict[str, object]) -> AsyncGenerator[bytes, None]:
    gathered: list[bytes] = []
    size = 0
    for piece in encode_slices(dump):
        gathered.append(piece)
        size += len(piece)
        await trio.lowlevel.checkpoint()
        if size >= _PIECE:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)
