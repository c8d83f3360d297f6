"""State from Istio's static file: read strictly, followed as it changes; a bad file never replaces a good one."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog
import trio

from ztunnel.state.errors import StateError
from ztunnel.state.static import MAX_BYTES, StaticState, read_static

__all__ = ["POLL", "StaticSource"]

POLL: Final = 0.1
"""Seconds between looks at the file: one stat(2)."""

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("ztunnel.state")


class StaticSource:
    """``apply(state)`` is awaited with each good state; it may raise StateError to refuse it."""

    def __init__(self, path: str, literal: str, apply: Callable[[StaticState], Awaitable[None]]) -> None:
        """``path`` or ``literal`` (LOCAL_XDS), or neither: then the state is empty."""
        self._path = path
        self._literal = literal
        self._apply = apply
        self.problem = ""
        """What is wrong with the file now; "" when it is in force."""

    async def run(self) -> None:
        """Until cancelled; returns at once when there is no file to follow."""
        if not self._path:
            await self._take(self._literal, "LOCAL_XDS")
            return
        seen: tuple[int, ...] | None = None
        missing = False
        while True:
            now = _fingerprint(self._path)
            if isinstance(now, str):
                if not missing:
                    self._refuse(f"{self._path}: {now}")
                missing = True
            elif now != seen or missing:
                missing = False
                seen = now
                await self._read()
            await trio.sleep(POLL)

    async def _read(self) -> None:
        try:
            text = await trio.to_thread.run_sync(_text, self._path)
        except (OSError, ValueError) as e:
            self._refuse(f"{self._path}: {e}")
            return
        if not text.strip():
            # What a writer leaves between truncating and writing: taken for a state it would lift every policy for that moment.
            self._refuse(f"{self._path}: the file is empty; write {{}} for a state in which there is nothing")
            return
        await self._take(text, self._path)

    async def _take(self, text: str, source: str) -> None:
        try:
            # In a thread: a large file is parsed while this half goes on serving its other tasks.
            state = await trio.to_thread.run_sync(read_static, text, source) if text.strip() else StaticState()
            await self._apply(state)
        except StateError as e:
            self._refuse(str(e))
            return
        self.problem = ""

    def _refuse(self, problem: str) -> None:
        self.problem = problem
        log.error("state refused, the one before stays in force", problem=problem)


def _fingerprint(path: str) -> tuple[int, ...] | str:
    """Changes when the file does; or why there is none."""
    try:
        stat = os.stat(path)
    except OSError as e:
        return os.strerror(e.errno or 0)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _text(path: str) -> str:
    with Path(path).open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    return data.decode()
