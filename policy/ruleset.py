"""A set of policies of one action, found by what a connection is and not by looking at each.

Theory of operation. For a rule to match, each of its clauses must; for a clause to match, one of its matches must, and
so one value of any positive field of that match. Take one clause, and from each of its matches one positive field: the
values of those fields together are a *necessary condition* of the rule. The rule is put into one table for each kind of
value, under each value. A connection has exactly one key for each table (its principal, its port, its source address cut
to the table's prefix length), so it is looked up, not compared; only the rules found so are tested whole. Rules that
have no positive field to stand under are always tested.

Which clause and fields: those whose places hold the fewest rules at the time of insertion. Ten thousand rules
``namespace = prod and port = N`` so end up under their ports by themselves.

Rules with equal content are one entry with many owners, so the common case of generated policies that repeat one
another costs one test. Used by :mod:`policy.index` only.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterator

from policy.compiled import Facts, Test, compile_rule, is_dead, range_of
from policy.model import Authorization, Clause, Match, PolicyKey, Rule, StringMatch, StringMatchKind

__all__ = ["Owner", "RuleSet"]

Owner = tuple[PolicyKey, int]
"""A policy and the index of its rule; their order is the order in which deciding rules are named."""

MANY = 1 << 30
"""The size of a place that is none: a rule goes there last."""
WEIGHED_VALUES = 8
"""Of a field's values, how many are looked at to guess how full its places are."""

_KeyOf = Callable[[Facts, int], Hashable]
_Table = tuple[_KeyOf, int]
_Place = tuple[_Table, Hashable]


def _principal(facts: Facts, _: int) -> Hashable:
    return facts.principal if facts.identified else None


def _principal_prefix(facts: Facts, length: int) -> Hashable:
    return facts.principal[:length] if facts.identified else None


def _principal_suffix(facts: Facts, length: int) -> Hashable:
    return facts.principal[max(len(facts.principal) - length, 0) :] if facts.identified else None


def _namespace(facts: Facts, _: int) -> Hashable:
    return facts.namespace


def _namespace_prefix(facts: Facts, length: int) -> Hashable:
    return facts.namespace[:length]


def _namespace_suffix(facts: Facts, length: int) -> Hashable:
    return facts.namespace[max(len(facts.namespace) - length, 0) :]


def _identified(facts: Facts, _: int) -> Hashable:
    return facts.identified


def _account(facts: Facts, _: int) -> Hashable:
    return facts.account


def _port(facts: Facts, _: int) -> Hashable:
    return facts.port


def _source(facts: Facts, drop: int) -> Hashable:
    return facts.source >> drop


def _destination(facts: Facts, drop: int) -> Hashable:
    return facts.destination >> drop


class _Entry:
    """One rule's content: who has it, where it stands. The test is made when first needed."""

    __slots__ = ("_test", "owners", "places", "rule")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.owners: list[Owner] = []
        self.places: list[_Place] | None = None
        self._test: Test | None = None

    def matches(self, facts: Facts) -> bool:
        if self._test is None:
            self._test = compile_rule(self.rule)
        return self._test(facts)


class RuleSet:
    """Policies of one action and enforcement. ``first`` and ``all`` answer; ``add`` and ``remove`` change."""

    __slots__ = ("_always", "_entries", "_lowest", "_policies", "_tables")

    def __init__(self) -> None:
        self._policies: dict[PolicyKey, Authorization] = {}
        self._entries: dict[Rule, _Entry] = {}
        self._always: list[_Entry] = []
        self._tables: dict[_Table, dict[Hashable, list[_Entry]]] = {}
        self._lowest: PolicyKey | None = None

    def __len__(self) -> int:
        return len(self._policies)

    def lowest(self) -> PolicyKey | None:
        """Return the first policy by key, whether or not it matches anything."""
        if self._lowest is None and self._policies:
            self._lowest = min(self._policies)
        return self._lowest

    def add(self, policy: Authorization) -> None:
        """Add a policy whose key is not in the set."""
        key = policy.key
        self._policies[key] = policy
        self._lowest = None
        for index, rule in enumerate(policy.rules):
            entry = self._entries.get(rule)
            if entry is None:
                if any(clause and all(map(is_dead, clause)) for clause in rule):
                    continue  # never matches
                entry = self._entries[rule] = _Entry(rule)
                self._place(entry)
            insort(entry.owners, (key, index))

    def remove(self, key: PolicyKey) -> None:
        """Remove a policy that is in the set."""
        policy = self._policies.pop(key)
        self._lowest = None
        for index, rule in enumerate(policy.rules):
            entry = self._entries.get(rule)
            if entry is None:
                continue
            del entry.owners[bisect_left(entry.owners, (key, index))]
            if not entry.owners:
                del self._entries[rule]
                self._displace(entry)

    def first(self, facts: Facts) -> Owner | None:
        """Return the lowest policy that matches, with its lowest matching rule."""
        best: Owner | None = None
        for entries in self._candidates(facts):
            for entry in entries:
                if (best is None or entry.owners[0] < best) and entry.matches(facts):
                    best = entry.owners[0]
        return best

    def all(self, facts: Facts) -> dict[PolicyKey, int]:
        """Return every policy that matches, with its lowest matching rule."""
        found: dict[PolicyKey, int] = {}
        for entries in self._candidates(facts):
            for entry in entries:
                if entry.matches(facts):
                    for key, index in entry.owners:
                        if index < found.get(key, MANY):
                            found[key] = index
        return found

    def _candidates(self, facts: Facts) -> list[list[_Entry]]:
        found = [self._always]
        for (key_of, size), table in self._tables.items():
            entries = table.get(key_of(facts, size))
            if entries is not None:
                found.append(entries)
        return found

    def _place(self, entry: _Entry) -> None:
        best: list[_Place] | None = None
        fewest = MANY
        for clause in entry.rule:
            if clause:
                size, places = self._condition(clause)
                if places is not None and size < fewest:
                    fewest, best = size, places
        entry.places = best
        if best is None:
            self._always.append(entry)
            return
        for table, value in best:
            self._tables.setdefault(table, {}).setdefault(value, []).append(entry)

    def _displace(self, entry: _Entry) -> None:
        if entry.places is None:
            self._always.remove(entry)
            return
        for table, value in entry.places:
            entries = self._tables[table][value]
            entries.remove(entry)
            if not entries:
                del self._tables[table][value]
                if not self._tables[table]:
                    del self._tables[table]

    def _condition(self, clause: Clause) -> tuple[int, list[_Place] | None]:
        """Return the fullest place that the clause would take, and the places; None when it has no such condition."""
        chosen: list[_Place] = []
        fullest = 0
        for match in clause:
            if is_dead(match):
                continue
            best: list[_Place] | None = None
            fewest = MANY
            for places in _fields(match):
                size = self._fullness(places)
                if size < fewest:
                    fewest, best = size, places
                    if not size:
                        break
            if best is None:
                return MANY, None
            chosen += best
            fullest = max(fullest, fewest)
        return fullest, list(dict.fromkeys(chosen))

    def _fullness(self, places: list[_Place]) -> int:
        fullest = 0
        for table, value in places[:WEIGHED_VALUES]:
            held = self._tables.get(table)
            if held is not None and (entries := held.get(value)) is not None and len(entries) > fullest:
                fullest = len(entries)
        return fullest


def _fields(match: Match) -> Iterator[list[_Place]]:
    """Yield for each field that gives a necessary condition where it would stand, the most telling field first."""
    if match.principals:
        yield [_string_place(value, _principal, _principal_prefix, _principal_suffix) for value in match.principals]
    if match.service_accounts:
        yield [((_account, 0), (value.namespace, value.service_account)) for value in match.service_accounts]
    if match.source_ips:
        yield [_range_place(value, _source) for value in match.source_ips]
    if match.namespaces:
        yield [_string_place(value, _namespace, _namespace_prefix, _namespace_suffix) for value in match.namespaces]
    if match.destination_ports:
        yield [((_port, 0), value) for value in match.destination_ports]
    if match.destination_ips:
        yield [_range_place(value, _destination) for value in match.destination_ips]
    if any(value.kind is StringMatchKind.PRESENCE for value in match.not_principals):
        yield [((_identified, 0), False)]


def _string_place(value: StringMatch, exact: _KeyOf, prefix: _KeyOf, suffix: _KeyOf) -> _Place:
    match value.kind:
        case StringMatchKind.EXACT:
            return (exact, 0), value.value
        case StringMatchKind.PREFIX:
            return (prefix, len(value.value)), value.value
        case StringMatchKind.SUFFIX:
            return (suffix, len(value.value)), value.value
        case StringMatchKind.PRESENCE:
            # A namespace that is not empty comes with an identity, and so does a principal.
            return (_identified, 0), True


def _range_place(text: str, key_of: _KeyOf) -> _Place:
    drop, left = range_of(text)
    return (key_of, drop), left
