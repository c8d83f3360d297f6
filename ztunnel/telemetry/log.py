"""The proxy's own log: structlog with ztunnel's line form and a filter that can change while it runs.

Shell of the control half. ``setup`` once per process; ``get_logger("xds")`` anywhere in the control half; the data plane's
``Log`` messages come in by :func:`relay`. Lines go to a sink: standard error at first, later the
:class:`ztunnel.telemetry.writer.LineWriter` that also takes the access log, so that lines of both never mix.
"""

import os
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

import structlog

from ztunnel.link.messages import Log
from ztunnel.telemetry.escape import Stamp, bare, json_string, quoted
from ztunnel.telemetry.filter import Filter, Level

__all__ = ["DEFAULT_FILTER", "LogControl", "Logger", "get_logger", "relay", "setup"]

DEFAULT_FILTER: Final = "info"
"""Filter without RUST_LOG, and what ``/logging?reset`` goes back to when there was none."""
_MAX_VALUE = 8192

Sink = Callable[[bytes], object]


def _stderr(line: bytes) -> None:
    try:
        os.write(2, line)
    except OSError:
        pass  # nowhere left to tell


class LogControl:
    """What is logged, how, and where to. One per process; :func:`setup` makes it current."""

    def __init__(self, text: str = DEFAULT_FILTER, *, json: bool = False, sink: Sink = _stderr) -> None:
        self.json = json
        self.sink = sink
        self.default, self.problems = Filter().extended(text)
        self.filter = self.default
        self._stamp = Stamp()

    def change(self, text: str, *, reset: bool = False) -> list[str]:
        """Add the directives of ``text`` to the filter, after going back to the start's if ``reset``.

        Returns what is wrong with ``text``; the filter is then left as it was.
        """
        changed, problems = (self.default if reset else self.filter).extended(text)
        if not problems:
            self.filter = changed
        return problems

    def enabled(self, level: Level, target: str) -> bool:
        """Whether a line would be written."""
        return self.filter.enabled(level, target)

    def write(self, level: Level, target: str, message: str, fields: dict[str, object]) -> None:
        """Write a line; the caller has asked :meth:`enabled`."""
        render = self._json if self.json else self._text
        self.sink(render(self._stamp(time.time()), level.name.lower(), target, message, fields).encode("utf-8", "replace"))

    def _text(self, stamp: str, level: str, target: str, message: str, fields: dict[str, object]) -> str:
        tail = " ".join(f"{bare(name)}={_text_value(value)}" for name, value in fields.items())
        plain = message if message.isprintable() else quoted(message)
        return f"{stamp}\t{level}\t{bare(target)}\t{plain}{chr(9) if tail else ''}{tail}\n"

    def _json(self, stamp: str, level: str, target: str, message: str, fields: dict[str, object]) -> str:
        tail = "".join(f",{json_string(name)}:{_json_value(value)}" for name, value in fields.items())
        head = f'"level":"{level}","time":"{stamp}","scope":{json_string(target)},"message":{json_string(message)}'
        return f"{{{head}{tail}}}\n"


def _text_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else quoted(str(value)[:_MAX_VALUE])


def _json_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else json_string(str(value)[:_MAX_VALUE])


_current: LogControl = LogControl()


class Logger(structlog.BoundLoggerBase):
    """structlog's binding with ztunnel's levels; a filtered line costs one dictionary look-up."""

    def _log(self, level: Level, event: str, fields: dict[str, Any]) -> None:
        context = dict(self._context)
        target = str(context.pop("target", "ztunnel"))
        if _current.enabled(level, target):
            _current.write(level, target, event, context | fields)

    def trace(self, event: str, **fields: object) -> None:
        """Every step."""
        self._log(Level.TRACE, event, fields)

    def debug(self, event: str, **fields: object) -> None:
        """For those who look for a fault."""
        self._log(Level.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """What an operator wants in a quiet log."""
        self._log(Level.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something is wrong and the proxy goes on."""
        self._log(Level.WARN, event, fields)

    warn = warning

    def error(self, event: str, **fields: object) -> None:
        """Something an operator has to act on."""
        self._log(Level.ERROR, event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """An error with the trace of the exception in hand."""
        self._log(Level.ERROR, event, {**fields, "trace": traceback.format_exc()})


def setup(control: LogControl) -> None:
    """Make ``control`` the process's log, and tell what its filter did not understand."""
    global _current
    _current = control
    for problem in control.problems:
        if control.enabled(Level.WARN, "log"):
            control.write(Level.WARN, "log", problem, {"remedy": "correct RUST_LOG"})


def get_logger(target: str, **fields: object) -> Logger:
    """A logger for ``target`` (the room's name: ``xds``, ``zds``, ``identity``); ``fields`` are on every line."""
    logger: Logger = structlog.wrap_logger(None, processors=[], wrapper_class=Logger, context_class=dict).bind(
        target=target, **fields
    )
    return logger


def relay(message: Log) -> None:
    """Write a line of the data plane."""
    level = {"debug": Level.DEBUG, "info": Level.INFO, "warn": Level.WARN}.get(message.level, Level.ERROR)
    if _current.enabled(level, message.target):
        _current.write(level, message.target, message.message, dict(message.fields))
