"""Rules made ready to be asked often: values parsed once, lists turned into sets, addresses into integers.

Used by :mod:`policy.ruleset` only. A host address is an integer with a leading one bit before its 32 or 128 bits, so
that IPv4 and IPv6 never compare equal; a range is (bits to drop, what is left), and ``address >> drop == left`` is
membership, for both families alike.
"""

from collections.abc import Callable
from functools import lru_cache

from policy.address import network, parse_identity, parse_ip
from policy.model import Match, Rule, StringMatch, StringMatchKind
from policy.verdict import Connection

__all__ = ["Facts", "Test", "compile_rule", "is_dead", "range_of"]

CACHED_TEXTS = 4096
"""Identities, and addresses, whose parsed form is remembered: a node's peers, with room. About 1 MiB when full."""


class Facts:
    """A connection, parsed: everything that a rule may ask. ``principal`` is empty when there is no identity."""

    __slots__ = ("account", "destination", "identified", "namespace", "port", "principal", "source")

    def __init__(self, connection: Connection) -> None:
        """Parse; raises MalformedConnectionError for an identity or address that is none."""
        self.identified = connection.identity is not None
        self.principal, self.namespace, self.account = _NOBODY if connection.identity is None else _peer(connection.identity)
        self.source = _host(connection.source_ip)
        self.destination = _host(connection.destination_ip)
        self.port = connection.destination_port


Test = Callable[[Facts], bool]

_Account = tuple[str, str]
_NOBODY: tuple[str, str, _Account | None] = ("", "", None)


@lru_cache(CACHED_TEXTS)
def _peer(identity: str) -> tuple[str, str, _Account | None]:
    peer = parse_identity(identity)
    return peer.principal, peer.namespace, (peer.namespace, peer.service_account)


@lru_cache(CACHED_TEXTS)
def _host(text: str) -> int:
    address = parse_ip(text)
    return 1 << address.max_prefixlen | int(address)


def range_of(text: str) -> tuple[int, int]:
    """Turn canonical CIDR text into (bits to drop, what is left)."""
    host, _, length = text.partition("/")
    quads = host.split(".")
    if len(quads) == 4:
        # Canonical by contract, so this is all there is to check; ipaddress takes ten times as long, for each range.
        a, b, c, d = map(int, quads)
        drop = 32 - int(length)
        return drop, (1 << 32 | a << 24 | b << 16 | c << 8 | d) >> drop
    found = network(text)
    drop = found.max_prefixlen - found.prefixlen
    return drop, (1 << found.max_prefixlen | int(found.network_address)) >> drop


def is_dead(match: Match) -> bool:
    """Say whether the match has no field: it is skipped, so it never matches."""
    return match == _EMPTY


_EMPTY = Match()


def compile_rule(rule: Rule) -> Test:
    """Make the test of one rule: AND over clauses, OR over matches, AND over fields."""
    clauses = tuple(
        tuple(_compile_match(match) for match in clause if not is_dead(match))
        for clause in rule
        if clause  # a clause without matches is true
    )

    def test(facts: Facts) -> bool:
        # Loops, not all(any(...)): generators here double the time of a candidate.
        for matches in clauses:
            for fields in matches:
                for holds, wanted in fields:
                    if holds(facts) is not wanted:
                        break
                else:
                    break
            else:
                return False
        return True

    return test


_Field = tuple[Test, bool]


def _compile_match(match: Match) -> tuple[_Field, ...]:
    fields: list[_Field] = []
    # The cheap and telling first: a port is compared faster than a range.
    for ports, wanted in ((match.destination_ports, True), (match.not_destination_ports, False)):
        if ports:
            fields.append((_port_test(ports), wanted))
    for texts, wanted in ((match.principals, True), (match.not_principals, False)):
        if texts:
            fields.append((_principal_test(texts), wanted))
    for texts, wanted in ((match.namespaces, True), (match.not_namespaces, False)):
        if texts:
            fields.append((_namespace_test(texts), wanted))
    for accounts, wanted in ((match.service_accounts, True), (match.not_service_accounts, False)):
        if accounts:
            fields.append((_account_test(frozenset((a.namespace, a.service_account) for a in accounts)), wanted))
    for ranges, wanted in ((match.source_ips, True), (match.not_source_ips, False)):
        if ranges:
            fields.append((_source_test(_by_length(ranges)), wanted))
    for ranges, wanted in ((match.destination_ips, True), (match.not_destination_ips, False)):
        if ranges:
            fields.append((_destination_test(_by_length(ranges)), wanted))
    return tuple(fields)


def _port_test(ports: tuple[int, ...]) -> Test:
    among = frozenset(ports)
    return lambda facts: facts.port in among


def _account_test(among: frozenset[_Account]) -> Test:
    return lambda facts: facts.account in among


def _principal_test(values: tuple[StringMatch, ...]) -> Test:
    among = _string_test(values)
    return lambda facts: facts.identified and among(facts.principal)


def _namespace_test(values: tuple[StringMatch, ...]) -> Test:
    among = _string_test(values)
    return lambda facts: among(facts.namespace)


def _string_test(values: tuple[StringMatch, ...]) -> Callable[[str], bool]:
    def of(kind: StringMatchKind) -> tuple[str, ...]:
        return tuple(value.value for value in values if value.kind is kind)

    exact, prefixes, suffixes = frozenset(of(StringMatchKind.EXACT)), of(StringMatchKind.PREFIX), of(StringMatchKind.SUFFIX)
    if of(StringMatchKind.PRESENCE):
        return lambda text: text != "" or text in exact or text.startswith(prefixes) or text.endswith(suffixes)
    if not prefixes and not suffixes:
        return exact.__contains__
    return lambda text: text in exact or text.startswith(prefixes) or text.endswith(suffixes)


_Ranges = tuple[tuple[int, frozenset[int]], ...]


def _by_length(texts: tuple[str, ...]) -> _Ranges:
    grouped: dict[int, set[int]] = {}
    for text in texts:
        drop, left = range_of(text)
        grouped.setdefault(drop, set()).add(left)
    return tuple((drop, frozenset(grouped[drop])) for drop in sorted(grouped))


def _source_test(ranges: _Ranges) -> Test:
    return lambda facts: any(facts.source >> drop in among for drop, among in ranges)


def _destination_test(ranges: _Ranges) -> Test:
    return lambda facts: any(facts.destination >> drop in among for drop, among in ranges)
