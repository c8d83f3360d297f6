"""How metrics look on the wire: Prometheus text 0.0.4 and OpenMetrics 1.0, chosen by ``Accept``.

Pure: labels, values and headers of families become bytes here and nowhere else. Used by the metric store; no input
can break a line (label values are escaped, names are reduced to the legal alphabet).
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["EOF", "Format", "Kind", "Naming", "accepts_gzip", "header", "labels", "legal_name", "negotiate", "number"]

EOF: Final = b"# EOF\n"
"""What ends an OpenMetrics exposition."""
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_:]")


class Format(StrEnum):
    """The value is the Content-Type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Kind(StrEnum):
    """Type of a metric family."""

    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True)
class Naming:
    """A family: ``name`` without ``_total``; ``label_names`` in the order in which samples give their values."""

    name: str
    kind: Kind
    help: str
    label_names: tuple[str, ...] = ()

    @property
    def sample(self) -> bytes:
        """Name of the family's samples."""
        return (self.name + "_total" if self.kind is Kind.COUNTER else self.name).encode()


def header(family: Naming, form: Format) -> bytes:
    """HELP and TYPE lines. OpenMetrics names a counter's family without ``_total``, the text format with it."""
    name = family.name if form is Format.OPENMETRICS else family.sample.decode()
    text = family.help.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {name} {text}\n# TYPE {name} {family.kind}\n".encode()


def labels(pairs: Iterable[tuple[str, str]]) -> str:
    """``a="b",c="d"`` without braces. Values may be anything; what cannot be UTF-8 becomes ``?``."""
    return ",".join(f'{name}="{_escape(value)}"' for name, value in pairs)


def _escape(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        value = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def number(value: float) -> bytes:
    """A sample's value: integers without a point, the rest as Go and Rust write them."""
    if isinstance(value, int):
        return b"%d" % value
    if math.isfinite(value):
        return b"%d" % int(value) if value.is_integer() and abs(value) < 2**53 else repr(value).encode()
    return b"NaN" if math.isnan(value) else (b"+Inf" if value > 0 else b"-Inf")


def legal_name(name: str) -> str:
    """``name`` with everything that a metric name may not hold turned into ``_``."""
    return _ILLEGAL.sub("_", name) or "_"


def negotiate(accept: str) -> Format:
    """OpenMetrics if the client lists it with a weight above zero, else text."""
    for part in accept.lower().split(","):
        kind, _, parameters = part.partition(";")
        if kind.strip() == "application/openmetrics-text" and _weight(parameters) > 0:
            return Format.OPENMETRICS
    return Format.TEXT


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether ``Accept-Encoding`` allows gzip (RFC 9110 §12.5.3)."""
    for part in accept_encoding.lower().split(","):
        coding, _, parameters = part.partition(";")
        if coding.strip() == "gzip":
            return _weight(parameters) > 0
    return False


def _weight(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
