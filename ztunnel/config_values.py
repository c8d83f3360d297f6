"""Parsers of environment variables' values: text in, typed value out, ValueError naming what is accepted.

Used by the configuration's table.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

__all__ = ["MeshConfig", "MeshConfigError", "address", "boolean", "duration", "integer", "mark", "one_of", "text", "workload_info"]

MAX_DURATION: Final = 10 * 366 * 86400.0
"""Seconds."""
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ns|us|µs|ms|s|m|h|d)")


class MeshConfigError(Exception):
    """The document cannot be used: says what and where."""


class MeshConfig(NamedTuple):
    """0 and "" are not set."""

    admin_port: int = 0
    stats_port: int = 0
    discovery_address: str = ""
    ignored: tuple[tuple[str, str], ...] = ()

    def overridden_by(self, other: "MeshConfig") -> "MeshConfig":
        """``other`` where it says something, else this."""
        return MeshConfig(
            other.admin_port or self.admin_port,
            other.stats_port or self.stats_port,
            other.discovery_address or self.discovery_address,
            tuple(dict.fromkeys(self.ignored + other.ignored)),
        )


def text(value: str) -> str:
    """Any text without control characters."""
    if not value.isprintable():
        raise ValueError("text without control characters")
    return value


def boolean(value: str) -> bool:
    """``true`` or ``false``, any case; also 1 and 0."""
    match value.strip().lower():
        case "true" | "1":
            return True
        case "false" | "0":
            return False
    raise ValueError("true or false")


def duration(value: str) -> float:
    """Seconds of ``10s``, ``5m``, ``1h30m``, ``100ms``; a bare number is seconds."""
    accepted = "a duration such as 10s, 5m, 1h30m or 100ms"
    body = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", body, re.ASCII):
        body += "s"
    total, at = 0.0, 0
    while at < len(body):
        part = _PART.match(body, at)
        if part is None:
            raise ValueError(accepted)
        total += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    if not body or total > MAX_DURATION:
        raise ValueError(f"{accepted}, at most ten years")
    return total


def integer(low: int, high: int) -> Callable[[str], int]:
    """A whole number in ``low``..``high``."""

    def parse(value: str) -> int:
        body = value.strip()
        if not re.fullmatch(r"[0-9]{1,15}", body, re.ASCII) or not low <= int(body) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(body)

    return parse


def mark(value: str) -> int:
    """A packet mark: 1..4294967295, decimal or 0x hexadecimal."""
    body = value.strip().lower()
    if re.fullmatch(r"[0-9]{1,10}|0x[0-9a-f]{1,8}", body, re.ASCII):
        number = int(body, 16) if body.startswith("0x") else int(body)
        if 0 < number < 2**32:
            return number
    raise ValueError("a packet mark from 1 to 4294967295, decimal or 0x hexadecimal")


def one_of(*accepted: str) -> Callable[[str], str]:
    """One of the given words, any case; answers in the case given here."""
    by_lower = {word.lower(): word for word in accepted}

    def parse(value: str) -> str:
        found = by_lower.get(value.strip().lower())
        if found is None:
            raise ValueError(f"one of {', '.join(accepted)}")
        return found

    return parse


def address(value: str) -> str:
    """ "" (off) or ``http(s)://host:port`` or ``host:port``, which is https."""
    body = value.strip()
    if not body:
        return ""
    if "://" not in body:
        body = f"https://{body}"
    if re.fullmatch(r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::[0-9]{1,5})?/?", body) is None:
        raise ValueError('https://host:port, or "" for none')
    return body.rstrip("/")


def workload_info(value: str) -> tuple[str, str, str]:
    """``namespace/name/serviceaccount``."""
    parts = value.strip().split("/")
    if len(parts) != 3 or not all(parts):
        raise ValueError("namespace/name/serviceaccount")
    return parts[0], parts[1], parts[2]
