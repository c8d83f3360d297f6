"""Values on a log line: quoted so that none can end the line, the field or the quotes, whoever chose it.

Pure. Text lines follow Rust's ``{:?}``, as ztunnel's do; JSON strings are RFC 8259. Used by the access log and the log.
"""

import re
from datetime import UTC, datetime
from typing import Final

import msgspec

__all__ = ["Stamp", "bare", "json_string", "quoted"]

_UNSAFE = re.compile(r"[^ !#-\[\]-~]").search
"""Anything but printable ASCII without quote and backslash."""
_NOT_BARE = re.compile(r"[^A-Za-z0-9.:\[\]_/%+@-]").search
_SHORT: Final = {"\t": "\\t", "\n": "\\n", "\r": "\\r", '"': '\\"', "\\": "\\\\", "\0": "\\0"}
_END_OF_TIME = 253402300799.0


def quoted(value: str) -> str:
    """``value`` in double quotes."""
    return f'"{value}"' if _UNSAFE(value) is None else f'"{"".join(map(_char, value))}"'


def bare(value: str) -> str:
    """``value`` without quotes when it is an address or a word, else quoted."""
    return value if value and _NOT_BARE(value) is None else quoted(value)


def _char(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    return char if char.isprintable() else f"\\u{{{ord(char):x}}}"


def json_string(value: str) -> str:
    """``value`` as a JSON string. Lone surrogates become ``?``; line separators of Unicode are escaped too."""
    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        text = msgspec.json.encode(value.encode("utf-8", "replace").decode()).decode()
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(c if c.isprintable() or ord(c) > 0xFFFF else f"\\u{ord(c):04x}" for c in text)


class Stamp:
    """Unix seconds as ``2026-01-31T12:00:00.000000Z``; keeps the text of the last second, as lines come in bursts."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def __call__(self, now: float) -> str:
        """Text of ``now``; times outside the years 1970 to 9999 are moved to the edge."""
        now = min(max(now, 0.0), _END_OF_TIME) if now == now else 0.0
        second = int(now)
        if second != self._second:
            self._second, self._text = second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._text}.{int((now - second) * 1_000_000):06d}Z"
