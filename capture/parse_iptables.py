"""Reads ``iptables-save``, of either variant and family. Pure, total and bounded: any bytes give a state or a ParseError.

Called by the two iptables backends with what the tool printed. Only our chains, and the rules anywhere that jump to
them, are kept. A rule with a match or option that ours never use stays as text and shows up as drift.
"""

import ipaddress
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from capture import constants as c
from capture.errors import ParseError
from capture.model import (
    Accept,
    Address,
    Drop,
    Family,
    Hook,
    Interface,
    Jump,
    Mark,
    MarkOf,
    Match,
    Port,
    Protocol,
    Redirect,
    RestoreMark,
    Return,
    Rule,
    RuleSet,
    SetConnmark,
    Side,
    TableName,
    Target,
    Zone,
)
from capture.snapshot import Snapshot

__all__ = [
    "CHAINS",
    "GUARD_CHAIN",
    "MAX_LISTING",
    "FamilyState",
    "TableState",
    "builtin",
    "expected_snapshot",
    "parse_rule",
    "parse_save",
    "snapshot_of",
]

CHAINS: Final[Mapping[Hook, str]] = {Hook.PREROUTING: "ISTIO_PRERT", Hook.OUTPUT: "ISTIO_OUTPUT"}
"""Our chain for each hook, istio-cni's names."""
GUARD_CHAIN: Final = "ISTIO_GUARD"
"""In table filter: the guardrail."""
MAX_LISTING: Final = 16 * 1024 * 1024
"""Most bytes of a listing that are read."""

_OURS: Final = {**{str(table): frozenset(CHAINS.values()) for table in TableName}, "filter": frozenset({GUARD_CHAIN})}


def builtin(hook: Hook) -> str:
    """iptables' own chain at a hook."""
    return hook.value.upper()


@dataclass(frozen=True, slots=True)
class TableState:
    """``chains``: ours, as canonical lines. ``jumps``: rules elsewhere that jump to them, as the tool printed them (``-A …``)."""

    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    jumps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FamilyState:
    """What one family's tables hold of ours; tables with nothing of ours are left out. ``rules``: how many rules in all."""

    family: Family
    tables: Mapping[str, TableState]
    rules: int = 0


def parse_save(data: bytes, family: Family) -> FamilyState:
    """Our part of what ``iptables-save`` or ``ip6tables-save`` printed."""
    if len(data) > MAX_LISTING:
        raise ParseError(f"iptables-save listed {len(data)} bytes, more than the {MAX_LISTING} that are read")
    chains: dict[str, dict[str, list[str]]] = {}
    jumps: dict[str, list[str]] = {}
    table: str | None = None
    count = 0
    for line in data.decode("utf-8", "replace").split("\n"):
        if line.startswith("*"):
            table = line[1:].strip()
        elif line == "COMMIT":
            table = None
        elif not line or line.startswith("#"):
            continue
        elif table is None:
            raise ParseError(f"iptables-save printed {line[:120]!r} outside of a table")
        elif line.startswith(":"):
            name = line[1:].partition(" ")[0]
            if name in _OURS.get(table, ()):
                chains.setdefault(table, {}).setdefault(name, [])
        elif line.startswith("-A "):
            count += 1
            name, _, spec = line[3:].partition(" ")
            if name in _OURS.get(table, ()):
                chains.setdefault(table, {}).setdefault(name, []).append(parse_rule(spec, family))
            elif _jump_of(spec) in _OURS.get(table, ()):
                jumps.setdefault(table, []).append(line)
        else:
            raise ParseError(f"iptables-save printed {line[:120]!r}, which is neither table, chain nor rule")
    tables = {
        name: TableState({chain: tuple(lines) for chain, lines in chains.get(name, {}).items()}, tuple(jumps.get(name, ())))
        for name in {*chains, *jumps}
    }
    return FamilyState(family, tables, count)


def snapshot_of(states: tuple[FamilyState, ...]) -> Snapshot:
    """The comparable form of both families' states."""
    chains: dict[str, tuple[str, ...]] = {}
    guard = False
    for state in states:
        for name, table in state.tables.items():
            if name == "filter":
                guard = True
                continue
            for chain, lines in table.chains.items():
                chains[_label(state.family, name, chain)] = lines
            chains[_label(state.family, name, "jumps")] = tuple(sorted(table.jumps))
    return Snapshot(chains, guard)


def expected_snapshot(rules: RuleSet) -> Snapshot:
    """What :func:`snapshot_of` gives after ``rules`` were applied."""
    chains: dict[str, tuple[str, ...]] = {}
    for family in rules.families:
        for table in rules.tables:
            jumps = [f"-A {builtin(chain.hook)} -j {CHAINS[chain.hook]}" for chain in table.chains]
            chains[_label(family, table.name, "jumps")] = tuple(sorted(jumps))
            for chain in table.chains:
                lines = tuple(rule.canonical() for rule in chain.for_family(family))
                chains[_label(family, table.name, CHAINS[chain.hook])] = lines
    return Snapshot(chains)


def parse_rule(spec: str, family: Family) -> str:
    """The canonical line of what follows ``-A CHAIN``, or its text if it is none of ours."""
    try:
        rule = _rule(shlex.split(spec), family)
    except (_NotOurs, ValueError, StopIteration):
        return f"foreign rule {spec[:400]!r}"
    return rule.canonical()


class _NotOurs(Exception):
    pass


_MODULES: Final = frozenset({"tcp", "udp", "mark", "connmark"})


def _rule(words: list[str], family: Family) -> Rule:
    matches: list[Match] = []
    target: Target | None = None
    module, negate = "", False
    stream = iter(words)
    for word in stream:
        if word == "!":
            if negate:
                raise _NotOurs
            negate = True
            continue
        if word == "-m":
            module = next(stream)
            if negate or module not in _MODULES:
                raise _NotOurs
            continue
        if word == "-j":
            if negate:
                raise _NotOurs
            target = _target(stream)  # takes all that is left
            continue
        matches.append(_match(word, next(stream), module, negate))
        negate = False
    if target is None or negate:
        raise _NotOurs
    return Rule(tuple(matches), target, family)


def _match(option: str, value: str, module: str, negate: bool) -> Match:
    match option:
        case "-s" | "-d":
            network = ipaddress.ip_network(value)
            if network.prefixlen != network.max_prefixlen:
                raise _NotOurs
            side = Side.SOURCE if option == "-s" else Side.DESTINATION
            return Address(side, str(network.network_address), negate)
        case "-i" | "-o":
            return Interface(Side.SOURCE if option == "-i" else Side.DESTINATION, value, negate)
        case "-p" if not negate:
            return Protocol(value)
        case "--sport" | "--dport" if module in ("tcp", "udp"):
            return Port(Side.SOURCE if option == "--sport" else Side.DESTINATION, _number(value, 0xFFFF), negate)
        case "--mark" if module in ("mark", "connmark"):
            mark, mask = _masked(value)
            return Mark(MarkOf.PACKET if module == "mark" else MarkOf.CONNECTION, mark, mask, negate)
    raise _NotOurs


def _target(stream: Iterator[str]) -> Target:
    name, *options = stream
    match name, options:
        case "ACCEPT", []:
            return Accept()
        case "RETURN", []:
            return Return()
        case "DROP", []:
            return Drop()
        case "REDIRECT", ["--to-ports", port]:
            return Redirect(_number(port, 0xFFFF))
        case "CONNMARK", ["--set-xmark", value]:
            mark, mask = _masked(value)
            if mark & ~mask:  # xor beyond the mask: not "set"
                raise _NotOurs
            return SetConnmark(mark, mask)
        case "CONNMARK", ["--restore-mark"]:
            return RestoreMark()
        case "CONNMARK", ["--restore-mark", "--nfmask", nf, "--ctmask", ct] if (
            _number(nf, c.FULL_MASK) == _number(ct, c.FULL_MASK) == c.FULL_MASK
        ):
            return RestoreMark()
        case "CT", ["--zone", zone]:
            return Zone(_number(zone, 0xFFFF))
        case _, []:
            return Jump(name)
    raise _NotOurs


def _masked(text: str) -> tuple[int, int]:
    value, slash, mask = text.partition("/")
    return _number(value, c.FULL_MASK), _number(mask, c.FULL_MASK) if slash else c.FULL_MASK


def _number(text: str, limit: int) -> int:
    if len(text) > 12 or not text.isascii():
        raise _NotOurs
    number = int(text, 0)
    if not 0 <= number <= limit:
        raise _NotOurs
    return number


def _jump_of(spec: str) -> str | None:
    """The target of a rule, also of one with quotes and options we don't know."""
    try:
        words = shlex.split(spec)
    except ValueError:
        words = spec.split()
    for option, name in pairwise(words):
        if option in ("-j", "-g"):
            return name
    return None


def _label(family: Family, table: str, chain: str) -> str:
    return f"iptables IPv{family.value} {table} {chain}"
