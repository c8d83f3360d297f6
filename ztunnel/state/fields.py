"""Typed fields of a YAML mapping, read strictly, every fault collected with line and path. Used by the static file reader.

A reader that meets a fault notes it and goes on with a default, so that one pass names many; the caller looks at the
:class:`Faults` before it uses anything.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from enum import StrEnum
from ipaddress import ip_network
from typing import Final, TypeVar

from ztunnel.state.addresses import canonical_ip
from ztunnel.state.errors import Problem
from ztunnel.state.yaml_nodes import MapNode, Node, ScalarNode, SeqNode

__all__ = [
    "MAX_PROBLEMS",
    "MAX_TEXT",
    "Faults",
    "Fields",
    "TooManyFaultsError",
    "child",
    "describe",
    "entries",
    "read_choice",
    "read_cidr",
    "read_ip",
    "read_ports",
    "read_text",
]

MAX_PROBLEMS: Final = 20
"""Faults reported at once."""
MAX_TEXT: Final = 1024
"""Characters of a string field."""

_E = TypeVar("_E", bound=StrEnum)


class TooManyFaultsError(Exception):
    """MAX_PROBLEMS are noted: reading on is of no use."""


class Faults:
    """The problems found so far."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, line: int, path: str, cause: str) -> None:
        """Note a problem. Raises TooManyFaultsError with the last one that is reported."""
        self.problems.append(Problem(line, path, cause))
        if len(self.problems) >= MAX_PROBLEMS:
            raise TooManyFaultsError


def child(path: str, key: str | int) -> str:
    """``path`` extended by a key or index: ``a.b``, ``a["x/y"]``, ``a[0]``."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not (key.isascii() and key.isidentifier()):
        shown = key[:80].replace("\\", "\\\\").replace('"', '\\"').encode("unicode_escape").decode("ascii")
        return f'{path}["{shown}"]'
    return f"{path}.{key}" if path else key


def describe(node: Node) -> str:
    """What a node is, for "expected …, found …"."""
    if isinstance(node, SeqNode):
        return "a list"
    if isinstance(node, MapNode):
        return "a mapping"
    value = node.value
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the boolean {node.text}"
    if isinstance(value, (int, float)):
        return f"the number {node.text[:40]}"
    return f"the string {value[:80]!r}"


def read_text(faults: Faults, node: Node, path: str) -> str:
    """A string of at most MAX_TEXT printable characters; "" with a fault noted."""
    value = node.value if isinstance(node, ScalarNode) else None
    if not isinstance(value, str):
        hint = "; quote it" if isinstance(value, (int, float)) else ""
        faults.add(node.line, path, f"expected a string, found {describe(node)}{hint}")
        return ""
    if len(value) > MAX_TEXT or not value.isprintable():
        faults.add(node.line, path, f"a string of at most {MAX_TEXT} printable characters is needed")
        return ""
    return value


def read_ip(faults: Faults, node: Node, path: str) -> str:
    """An address as canonical text; "" with a fault noted."""
    text = read_text(faults, node, path)
    ip = canonical_ip(text) if text else None
    if text and ip is None:
        faults.add(node.line, path, f"{text[:80]!r} is not an IP address")
    return ip or ""


def read_cidr(faults: Faults, node: Node, path: str) -> str:
    """A CIDR as canonical text; "" with a fault noted."""
    text = read_text(faults, node, path)
    if not text:
        return ""
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        faults.add(node.line, path, f"{text[:80]!r} is not a CIDR such as 10.0.0.0/8 or fd00::/64")
        return ""
    address, slash, length = text.partition("/")
    if "%" in address or not (slash and length.isdigit()):
        faults.add(node.line, path, f"{text[:80]!r} is not a CIDR: write the prefix length, as in {network}")
        return ""
    if canonical_ip(address) != str(network.network_address):
        faults.add(node.line, path, f"{text[:80]!r} has bits set behind its prefix; {network} is meant?")
        return ""
    return str(network)


class Fields:
    """The fields of one mapping. Unknown and repeated ones are noted at once, the others as they are asked for."""

    def __init__(self, faults: Faults, node: Node, path: str, known: frozenset[str]) -> None:
        self.faults, self.path, self.line = faults, path, node.line
        self._nodes: dict[str, Node] = {}
        self._readable = isinstance(node, MapNode)
        if not isinstance(node, MapNode):
            faults.add(node.line, path, f"expected a mapping, found {describe(node)}")
            return
        for key, value in node.pairs:
            name = key.text
            where = child(path, name)
            if name in self._nodes:
                faults.add(key.line, where, f"given twice; the first is on line {self._nodes[name].line}")
            elif name not in known:
                near = get_close_matches(name[:80], known, 1, 0.6)
                hint = f"; {near[0]!r} is meant?" if near else f"; known here: {', '.join(sorted(known))}"
                faults.add(key.line, where, f"unknown field{hint}")
            else:
                self._nodes[name] = value

    def at(self, name: str) -> str:
        """The field's path."""
        return child(self.path, name)

    def node(self, name: str) -> Node | None:
        """The field as it stands."""
        return self._nodes.get(name)

    def optional(self, name: str) -> Node | None:
        """The field, unless it is absent or null."""
        node = self._nodes.get(name)
        return None if isinstance(node, ScalarNode) and node.value is None else node

    def require(self, name: str, remedy: str) -> Node | None:
        """The field; a fault if it is absent."""
        node = self._nodes.get(name)
        if node is None and self._readable:
            self.faults.add(self.line, self.at(name), f"missing; {remedy}")
        return node

    def text(self, name: str, default: str = "") -> str:
        """A string."""
        node = self._nodes.get(name)
        return default if node is None else read_text(self.faults, node, self.at(name))

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number in ``low``..``high``."""
        node = self._nodes.get(name)
        if node is None:
            return default
        value = node.value if isinstance(node, ScalarNode) else None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.faults.add(node.line, self.at(name), f"expected a whole number from {low} to {high}, found {describe(node)}")
            return default
        return value

    def boolean(self, name: str) -> bool:
        """true or false; false if absent."""
        node = self._nodes.get(name)
        if node is None:
            return False
        value = node.value if isinstance(node, ScalarNode) else None
        if not isinstance(value, bool):
            self.faults.add(node.line, self.at(name), f"expected true or false, found {describe(node)}")
            return False
        return value

    def choice(self, name: str, default: _E) -> _E:
        """A value of the enum that ``default`` is of."""
        node = self._nodes.get(name)
        return default if node is None else read_choice(self.faults, node, self.at(name), default)

    def items(self, name: str) -> Iterator[tuple[Node, str]]:
        """(node, path) of a list's elements; none if absent."""
        node = self._nodes.get(name)
        if isinstance(node, SeqNode):
            path = self.at(name)
            for index, item in enumerate(node.items):
                yield item, child(path, index)
        elif node is not None:
            self.faults.add(node.line, self.at(name), f"expected a list, found {describe(node)}")

    def entries(self, name: str) -> Iterator[tuple[ScalarNode, Node, str]]:
        """(key, value, path) of a mapping's entries, each key once; none if absent."""
        node = self._nodes.get(name)
        if node is not None:
            yield from entries(self.faults, node, self.at(name))


def entries(faults: Faults, node: Node, path: str) -> Iterator[tuple[ScalarNode, Node, str]]:
    """(key, value, path) of a mapping's entries; a repeated key is a fault and left out."""
    if not isinstance(node, MapNode):
        faults.add(node.line, path, f"expected a mapping, found {describe(node)}")
        return
    seen: dict[str, int] = {}
    for key, value in node.pairs:
        where = child(path, key.text)
        if key.text in seen:
            faults.add(key.line, where, f"given twice; the first is on line {seen[key.text]}")
            continue
        seen[key.text] = key.line
        yield key, value, where


def read_choice(faults: Faults, node: Node, path: str, default: _E) -> _E:
    """One of an enum's values; ``default`` with a fault noted."""
    names = [str(member.value) for member in type(default)]
    text = node.text if isinstance(node, ScalarNode) else ""
    if text not in names:
        near = [n for n in names if n.lower() == text.lower()] or get_close_matches(text[:80], names, 1, 0.6)
        hint = f"; {near[0]!r} is meant?" if near else ""
        faults.add(node.line, path, f"expected one of {', '.join(names)}, found {describe(node)}{hint}")
        return default
    return type(default)(text)


def read_ports(faults: Faults, node: Node, path: str) -> dict[int, int]:
    """{service port 1..65535: target port 0..65535}; keys may be quoted, as JSON has them."""
    ports: dict[int, int] = {}
    for key, value, where in entries(faults, node, path):
        service_port = _port(key.text, 1)
        target = _port(value.text, 0) if isinstance(value, ScalarNode) and not value.quoted else None
        if service_port is None:
            faults.add(key.line, where, f"{key.text[:40]!r} is not a port from 1 to 65535")
        elif target is None:
            faults.add(value.line, where, f"expected a port from 0 to 65535, found {describe(value)}")
        elif service_port in ports:
            faults.add(key.line, where, "the port is given twice")
        else:
            ports[service_port] = target
    return ports


def _port(text: str, low: int) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        return None
    port = int(text)
    return port if low <= port <= 65535 else None
