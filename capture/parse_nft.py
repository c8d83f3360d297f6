"""Reads ``nft -j list ruleset``. Pure, total and bounded: any bytes give a snapshot or a :class:`ParseError`.

Called by the nftables backend with what the tool printed. Only our tables are looked into. A statement that our rules
never use makes its rule opaque: it is kept as text and shows up as drift.
"""

import ipaddress
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from capture import constants as c
from capture.errors import ParseError
from capture.model import (
    Accept,
    Address,
    Drop,
    Family,
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
    Target,
    Zone,
)
from capture.render_nft import GUARD_TABLE, TABLES, chain_name, table_name
from capture.snapshot import Snapshot

__all__ = ["MAX_LISTING", "NftListing", "expected_snapshot", "parse_listing", "parse_rule"]

MAX_LISTING: Final = 16 * 1024 * 1024
"""Most bytes of a listing that are read; a pod's own rules are a few kilobytes."""

# JSON from outside the room is shapeless until it has been looked at.
Json = Any


@dataclass(frozen=True, slots=True)
class NftListing:
    """``snapshot``: our tables. ``iptables_leftovers``: whether iptables-nft's tables hold chains of ours."""

    snapshot: Snapshot
    iptables_leftovers: bool


def parse_listing(data: bytes) -> NftListing:
    """Our part of a whole rule set."""
    if len(data) > MAX_LISTING:
        raise ParseError(f"nft listed {len(data)} bytes, more than the {MAX_LISTING} that are read: too many foreign rules")
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ParseError(f"nft's listing is not JSON ({error}); nft needs JSON support compiled in") from None
    items = document.get("nftables") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise ParseError("nft's listing has no list named 'nftables'")
    chains: dict[str, list[str]] = {}
    guard = leftovers = False
    for item in items:
        if not isinstance(item, dict) or len(item) != 1:
            continue
        ((kind, body),) = item.items()
        if not isinstance(body, dict):
            continue
        if kind == "chain" and body.get("family") in ("ip", "ip6") and str(body.get("name")).startswith("ISTIO_"):
            leftovers = leftovers or body.get("table") in ("nat", "mangle", "raw", "filter")
        if body.get("family") != "inet":
            continue
        if kind == "table":
            guard = guard or body.get("name") == GUARD_TABLE
            if body.get("name") in TABLES:
                chains.setdefault(_table_label(str(body["name"])), []).extend(_flags(body))
        elif kind == "chain" and body.get("table") in TABLES:
            chains.setdefault(_label(body.get("table"), body.get("name")), []).extend(_header(body))
        elif kind == "rule" and body.get("table") in TABLES:
            chains.setdefault(_label(body.get("table"), body.get("chain")), []).append(parse_rule(body.get("expr")))
        elif body.get("table") in TABLES:
            chains.setdefault(_table_label(str(body["table"])), []).append(f"a {kind} named {body.get('name')!r}")
    return NftListing(Snapshot({label: tuple(lines) for label, lines in chains.items()}, guard), leftovers)


def expected_snapshot(rules: RuleSet) -> Snapshot:
    """What :func:`parse_listing` finds after ``rules`` were applied."""
    chains: dict[str, tuple[str, ...]] = {}
    for table in rules.tables:
        name = table_name(table.name)
        chains[_table_label(name)] = ()
        for chain in table.chains:
            head = f"type {chain.kind} hook {chain.hook} priority {chain.priority} policy accept"
            chains[_label(name, chain.hook)] = (head, Rule((), Jump(chain_name(chain.hook))).canonical())
            chains[_label(name, chain_name(chain.hook))] = tuple(rule.canonical() for rule in chain.rules)
    return Snapshot(chains)


def parse_rule(expressions: Json) -> str:
    """The canonical line of a rule's ``expr`` list, or its text if it is none of ours."""
    try:
        rule = _rule(expressions)
    except (_NotOurs, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return "foreign rule " + _opaque(expressions)
    return rule.canonical()


class _NotOurs(Exception):
    pass


def _rule(expressions: Json) -> Rule:
    matches: list[Match] = []
    target: Target | None = None
    family = Family.ANY
    for expression in expressions:
        if target is not None:  # whatever follows the target changes the meaning of a rule of ours
            raise _NotOurs
        ((kind, body),) = expression.items()
        if kind == "counter":
            continue
        if kind == "match":
            if body["left"] == {"meta": {"key": "nfproto"}} and body["op"] == "==":
                family = {"ipv4": Family.V4, "ipv6": Family.V6}[body["right"]]
                continue
            found = _match(body)
            matches += found
            for match in found:
                if isinstance(match, Address):
                    family = Family.V6 if ":" in match.address else Family.V4
        else:
            target = _target(kind, body)
    if target is None:
        raise _NotOurs
    return Rule(tuple(matches), target, family)


def _match(body: Json) -> list[Match]:
    left, right, negate = body["left"], body["right"], {"==": False, "!=": True}[body["op"]]
    ((kind, key),) = left.items()
    if kind == "&":
        return [_mark(key, _integer(right), negate)]
    if kind == "meta" and key["key"] in ("iifname", "oifname"):
        return [Interface(Side.SOURCE if key["key"] == "iifname" else Side.DESTINATION, _text(right), negate)]
    if kind == "meta" and key["key"] == "l4proto" and not negate:
        return [Protocol(_text(right))]
    if kind == "payload":
        protocol, name = key["protocol"], key["field"]
        if protocol in ("ip", "ip6") and name in ("saddr", "daddr"):
            side = Side.SOURCE if name == "saddr" else Side.DESTINATION
            address = ipaddress.ip_address(_text(right))
            if address.version != (4 if protocol == "ip" else 6):
                raise _NotOurs
            return [Address(side, str(address), negate)]
        if protocol in ("tcp", "udp") and name in ("sport", "dport"):
            side = Side.SOURCE if name == "sport" else Side.DESTINATION
            return [Protocol(protocol), Port(side, _integer(right), negate)]
    raise _NotOurs


def _mark(operands: Json, value: int, negate: bool) -> Mark:
    of, mask = operands
    return Mark({"meta": MarkOf.PACKET, "ct": MarkOf.CONNECTION}[_mark_kind(of)], value, _integer(mask), negate)


def _target(kind: str, body: Json) -> Target:
    if kind in _PLAIN and body is None:
        return _PLAIN[kind]
    if kind == "jump":
        return Jump(_text(body["target"]))
    if kind == "redirect":
        if body.keys() != {"port"}:
            raise _NotOurs
        return Redirect(_integer(body["port"]))
    if kind == "mangle":
        key, value = body["key"], body["value"]
        if key == {"ct": {"key": "zone"}}:
            return Zone(_integer(value))
        if _mark_kind(key) == "meta" and _mark_kind(value) == "ct":
            return RestoreMark()
        if _mark_kind(key) == "ct":
            return _set_connmark(value)
    raise _NotOurs


_PLAIN: Final[dict[str, Target]] = {"accept": Accept(), "return": Return(), "drop": Drop()}


def _set_connmark(value: Json) -> SetConnmark:
    """``(ct mark & keep) | set``, in the many forms that nft versions print it: bits both kept and set are just set."""
    ((operator, (inner, set_)),) = value.items()
    ((and_, (source, keep)),) = inner.items()
    bits, kept = _integer(set_), _integer(keep)
    if and_ != "&" or _mark_kind(source) != "ct" or operator not in ("|", "^") or (operator == "^" and bits & kept):
        raise _NotOurs
    return SetConnmark(bits, (kept & ~bits & c.FULL_MASK) ^ c.FULL_MASK)


def _mark_kind(expression: Json) -> str:
    ((kind, body),) = expression.items()
    if kind not in ("meta", "ct") or body != {"key": "mark"}:
        raise _NotOurs
    return str(kind)


def _integer(value: Json) -> int:
    if type(value) is not int or not 0 <= value <= c.FULL_MASK:
        raise _NotOurs
    return value


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise _NotOurs
    return value


def _flags(body: Json) -> list[str]:
    """A dormant table lists its rules and applies none of them."""
    return [f"flags {_opaque(body['flags'])}"] if body.get("flags") else []


def _header(body: Json) -> list[str]:
    if "hook" not in body:
        return []
    values = [f"{word} {body.get(key)}" for word, key in (("type", "type"), ("hook", "hook"), ("priority", "prio"))]
    return [" ".join([*values, f"policy {body.get('policy')}"])]


def _opaque(value: Json) -> str:
    try:
        text = msgspec.json.encode(value).decode("utf-8", "replace")
    except (RecursionError, UnicodeEncodeError, TypeError, ValueError):
        text = "(unprintable)"
    return text[:400]


def _label(table: Json, chain: Json) -> str:
    return f"nftables {table} {chain}"


def _table_label(table: str) -> str:
    return f"nftables {table}"
