"""What a rule set is made of: tables, chains, rules, matches and targets, in the terms of no backend.

Pure values. ``rules.py`` builds the in-pod set of them, renderers turn them into a backend's language, parsers turn what a backend
lists back into them.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

from capture import constants as c

__all__ = [
    "Accept",
    "Address",
    "Chain",
    "Drop",
    "Family",
    "Hook",
    "Interface",
    "Jump",
    "LocalRoute",
    "Mark",
    "MarkOf",
    "Match",
    "PolicyRule",
    "Port",
    "Protocol",
    "Redirect",
    "RestoreMark",
    "Return",
    "Rule",
    "RuleSet",
    "SetConnmark",
    "Side",
    "Table",
    "TableName",
    "Target",
    "Zone",
]


class Family(Enum):
    """Which packets a rule is for. ANY: the rule names no address, and holds for both families."""

    ANY = 0
    V4 = 4
    V6 = 6


class TableName(StrEnum):
    RAW = "raw"
    MANGLE = "mangle"
    NAT = "nat"


class Hook(StrEnum):
    PREROUTING = "prerouting"
    OUTPUT = "output"


class Side(StrEnum):
    SOURCE = "source"
    DESTINATION = "destination"


class MarkOf(StrEnum):
    PACKET = "packet"
    CONNECTION = "connection"


# --- matches ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Interface:
    """The packet came in by (PREROUTING) or leaves by (OUTPUT) the interface; the hook says which."""

    side: Side
    name: str
    negate: bool = False


@dataclass(frozen=True, slots=True)
class Protocol:
    """``tcp`` or ``udp``."""

    name: str


@dataclass(frozen=True, slots=True)
class Address:
    """One host address (a /32 or /128), in canonical text form."""

    side: Side
    address: str
    negate: bool = False


@dataclass(frozen=True, slots=True)
class Port:
    """TCP or UDP port; the rule also has a :class:`Protocol`."""

    side: Side
    port: int
    negate: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """``(mark & mask) == value``, or != when negated."""

    of: MarkOf
    value: int
    mask: int = c.MARK_MASK
    negate: bool = False


Match = Interface | Protocol | Address | Port | Mark

# --- targets ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accept:
    pass


@dataclass(frozen=True, slots=True)
class Return:
    pass


@dataclass(frozen=True, slots=True)
class Drop:
    pass


@dataclass(frozen=True, slots=True)
class Jump:
    chain: str


@dataclass(frozen=True, slots=True)
class Redirect:
    """To the port on an address of this netns; ends the evaluation."""

    port: int


@dataclass(frozen=True, slots=True)
class SetConnmark:
    """Connection mark = (mark & ~mask) | value."""

    value: int
    mask: int = c.MARK_MASK


@dataclass(frozen=True, slots=True)
class RestoreMark:
    """Packet mark = connection mark, all 32 bits."""


@dataclass(frozen=True, slots=True)
class Zone:
    """Conntrack zone."""

    zone: int


Target = Accept | Return | Drop | Jump | Redirect | SetConnmark | RestoreMark | Zone

# --- structure -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """All matches hold → the target. The order of matches has no meaning; :meth:`canonical` forgets it."""

    matches: tuple[Match, ...]
    target: Target
    family: Family = Family.ANY

    def canonical(self) -> str:
        """One line of text, equal for equal meaning: what drift is compared and reported in."""
        parts = sorted(_describe(match) for match in set(self.matches))
        prefix = {Family.ANY: [], Family.V4: ["ipv4"], Family.V6: ["ipv6"]}[self.family]
        return " ".join([*prefix, *parts, "->", _describe(self.target)])


@dataclass(frozen=True, slots=True)
class Chain:
    """The rules at one hook. ``kind`` and ``priority`` are nftables' terms; iptables has them built in."""

    hook: Hook
    kind: str
    priority: int
    rules: tuple[Rule, ...]

    def for_family(self, family: Family) -> tuple[Rule, ...]:
        """The rules that packets of one family meet, each with that family."""
        return tuple(Rule(r.matches, r.target, family) for r in self.rules if r.family in (Family.ANY, family))


@dataclass(frozen=True, slots=True)
class Table:
    name: TableName
    chains: tuple[Chain, ...]


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """``ip rule``: packets whose mark matches are routed by ``table``."""

    family: Family
    mark: int = c.LOOP_MARK
    mask: int = c.MARK_MASK
    table: int = c.ROUTE_TABLE
    priority: int = c.RULE_PRIORITY


@dataclass(frozen=True, slots=True)
class LocalRoute:
    """``local default dev lo table N``: whatever is routed by the table is delivered here."""

    family: Family
    table: int = c.ROUTE_TABLE


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Everything that capture puts into one pod's network namespace."""

    families: tuple[Family, ...]
    tables: tuple[Table, ...]
    policy_rules: tuple[PolicyRule, ...]
    routes: tuple[LocalRoute, ...]


def _describe(part: Match | Target) -> str:
    match part:
        case Interface(side, name, negate):
            return f"{_NOT[negate]}{'in' if side is Side.SOURCE else 'out'}-interface {name}"
        case Protocol(name):
            return f"protocol {name}"
        case Address(side, address, negate):
            return f"{_NOT[negate]}{side} {address}"
        case Port(side, port, negate):
            return f"{_NOT[negate]}{side}-port {port}"
        case Mark(of, value, mask, negate):
            return f"{_NOT[negate]}{of}-mark {value:#x}/{mask:#x}"
        case Jump(chain):
            return f"jump {chain}"
        case Redirect(port):
            return f"redirect {port}"
        case SetConnmark(value, mask):
            return f"set connection-mark {value:#x}/{mask:#x}"
        case RestoreMark():
            return "restore packet-mark"
        case Zone(zone):
            return f"conntrack zone {zone}"
        case Accept() | Return() | Drop():
            return type(part).__name__.lower()


_NOT: Final = {False: "", True: "not "}
