"""``/metrics`` and ``/stats/prometheus``: the metric store over HTTP.

Shell. The exposition is made in slices with a checkpoint after each, and sent as it is made: a scrape of tens of megabytes neither
stops the event loop nor stands in memory.
"""

import zlib
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Final

import trio

from ztunnel.admin.message import Request, Response, Routes
from ztunnel.telemetry.exposition import accepts_gzip, negotiate
from ztunnel.telemetry.metrics import MetricStore

__all__ = ["PIECE", "stats_routes"]

PIECE: Final = 64 * 1024
"""Bytes that are gathered before they are sent."""
_GZIP = 16 + zlib.MAX_WBITS


def stats_routes(store: MetricStore, refresh: Callable[[], None]) -> Routes:
    """Routes of the metrics port. ``refresh`` is called before each scrape, to set what is read on demand."""

    async def metrics(request: Request) -> Response:
        refresh()
        form = negotiate(request.headers.get("accept", ""))
        zipped = accepts_gzip(request.headers.get("accept-encoding", ""))
        headers = (("Content-Encoding", "gzip"), ("Vary", "Accept, Accept-Encoding")) if zipped else ()
        return Response(200, _pieces(store.render(form), zipped), form.value, headers)

    routes = Routes()
    routes.add("GET", "/metrics", metrics)
    routes.add("GET", "/stats/prometheus", metrics)
    return routes


async def _pieces(slices: Iterator[bytes], zipped: bool) -> AsyncGenerator[bytes, None]:
    # Level 1: on label text it packs 20 times already, and a higher level costs more time than the network saves.
    packer = zlib.compressobj(1, wbits=_GZIP) if zipped else None
    gathered: list[bytes] = []
    size = 0
    for piece in slices:
        data = packer.compress(piece) if packer else piece
        gathered.append(data)
        size += len(data)
        await trio.lowlevel.checkpoint()
        if size >= PIECE:
            yield b"".join(gathered)
            gathered, size = [], 0
    if packer:
        gathered.append(packer.flush())
    yield b"".join(gathered)
