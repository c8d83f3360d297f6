"""The rules of an AuthorizationPolicy: what :mod:`policy.istio` translates, one rule at a time.

Per rule one clause for ``to``, one for ``from``, and one for each condition of ``when``; within ``to`` and ``from`` one match
for each element. HTTP attributes are read, named in ``unsupported`` and explained in ``notes``; see :mod:`policy.istio`.
"""

from collections.abc import Callable
from typing import TypeVar

import yaml

from policy.address import MAX_PORT, network
from policy.document import Fields, Reader
from policy.errors import nearest
from policy.istio_fields import L4_CONDITIONS, OPERATION_L7, SOURCE_L7, is_l7_condition
from policy.model import Action, Clause, Match, Rule, ServiceAccountMatch, StringMatch, StringMatchKind

__all__ = ["Rules", "string_match"]

_T = TypeVar("_T")
_REMEDY = "enforce it with a waypoint and a targetRef"


def string_match(text: str) -> StringMatch:
    """Read Istio's wildcard: ``*`` is presence, ``*x`` a suffix (even if it ends in ``*``), ``x*`` a prefix, else exact."""
    if text == "*":
        return StringMatch(StringMatchKind.PRESENCE)
    if text.startswith("*"):
        return StringMatch(StringMatchKind.SUFFIX, text[1:])
    if text.endswith("*"):
        return StringMatch(StringMatchKind.PREFIX, text[:-1])
    return StringMatch(StringMatchKind.EXACT, text)


class Rules:
    """Reads ``spec.rules`` of one policy in ``namespace``. Problems go to the reader; the result is then thrown away."""

    def __init__(self, reader: Reader, namespace: str, action: Action) -> None:
        self.notes: list[str] = []
        self.unsupported: dict[str, None] = {}
        self._reader = reader
        self._namespace = namespace
        self._action = action

    def read(self, node: yaml.Node, path: str) -> tuple[Rule, ...]:
        """Read the list; rules that cannot be enforced are left out."""
        read = self._reader.items(node, path, self._rule)
        return tuple(rule for rule in read if rule is not None)

    def _rule(self, node: yaml.Node, path: str) -> Rule | None:
        reader = self._reader
        fields = reader.fields(node, path, ("from", "to", "when"))
        found: list[str] = []

        def part(key: str, read: Callable[[yaml.Node, str, list[str]], Match]) -> list[Match]:
            if key not in fields:
                return []
            return reader.items(fields[key], f"{path}.{key}", lambda item, where: read(item, where, found), least=1)

        clauses: list[Clause] = []
        for key, read in (("to", self._to), ("from", self._from)):
            if matches := part(key, read):
                clauses.append(tuple(matches))
        clauses += [(match,) for match in part("when", self._when)]
        if found:
            self.unsupported.update(dict.fromkeys(found))
            self.notes.append(
                f"{path} {self._effect(clauses)}: the node proxy cannot check {', '.join(dict.fromkeys(found))}; {_REMEDY}"
            )
            if self._action is Action.ALLOW:
                return None
        return tuple(clauses)

    def _effect(self, clauses: list[Clause]) -> str:
        """Say what becomes of a rule with HTTP attributes. A match that lost all its fields matches nothing."""
        empty = Match()
        if self._action is Action.ALLOW:
            return "is left out and allows nothing"
        if any(all(match == empty for match in clause) for clause in clauses):
            return "has no effect and denies nothing"
        if any(match == empty for clause in clauses for match in clause):
            return "denies only in part"
        return "denies more than it says"

    def _to(self, node: yaml.Node, path: str, found: list[str]) -> Match:
        fields, where = self._inner(node, path, "operation", ("ports", "notPorts"), OPERATION_L7, found)
        return Match(
            destination_ports=self._values(fields, where, "ports", self._port),
            not_destination_ports=self._values(fields, where, "notPorts", self._port),
        )

    def _from(self, node: yaml.Node, path: str, found: list[str]) -> Match:
        l4 = ("principals", "namespaces", "serviceAccounts", "ipBlocks")
        not_l4 = ("notPrincipals", "notNamespaces", "notServiceAccounts", "notIpBlocks")
        fields, where = self._inner(node, path, "source", l4 + not_l4, SOURCE_L7, found)
        accounts = [key for key in ("serviceAccounts", "notServiceAccounts") if key in fields]
        others = [key for key in ("principals", "notPrincipals", "namespaces", "notNamespaces") if key in fields]
        if accounts and others:
            self._reader.problem(fields[accounts[0]], f"{where}.{accounts[0]}", f"cannot be set together with {', '.join(others)}")
        return Match(
            principals=self._values(fields, where, "principals", self._principal),
            not_principals=self._values(fields, where, "notPrincipals", self._principal),
            namespaces=self._values(fields, where, "namespaces", self._string),
            not_namespaces=self._values(fields, where, "notNamespaces", self._string),
            service_accounts=self._values(fields, where, "serviceAccounts", self._account),
            not_service_accounts=self._values(fields, where, "notServiceAccounts", self._account),
            source_ips=self._values(fields, where, "ipBlocks", self._range),
            not_source_ips=self._values(fields, where, "notIpBlocks", self._range),
        )

    def _inner(
        self, node: yaml.Node, path: str, key: str, l4: tuple[str, ...], l7: tuple[str, ...], found: list[str]
    ) -> tuple[Fields, str]:
        """Read the one mapping inside an element of from or to; HTTP fields are read too, and only their names kept."""
        outer = self._reader.fields(node, path, (key,))
        where = f"{path}.{key}"
        if key not in outer:
            if isinstance(node, yaml.MappingNode):
                self._reader.problem(node, where, "required and missing")
            return {}, where
        fields = self._reader.fields(outer[key], where, l4 + l7)
        if not fields:
            self._reader.problem(outer[key], where, "must have at least one field: to match anything, leave it out")
        for name in l7:
            if name in fields:
                self._reader.items(fields[name], f"{where}.{name}", self._reader.text, least=1)
                found.append(name)
        return fields, where

    def _when(self, node: yaml.Node, path: str, found: list[str]) -> Match:
        fields = self._reader.fields(node, path, ("key", "values", "notValues"))
        if "key" not in fields:
            self._reader.problem(node, f"{path}.key", "required and missing")
            return Match()
        key = self._reader.text(fields["key"], f"{path}.key")
        if not ("values" in fields or "notValues" in fields):
            self._reader.problem(node, path, "must have values or notValues")
        match key:
            case "source.ip":
                return Match(
                    source_ips=self._values(fields, path, "values", self._range),
                    not_source_ips=self._values(fields, path, "notValues", self._range),
                )
            case "destination.ip":
                return Match(
                    destination_ips=self._values(fields, path, "values", self._range),
                    not_destination_ips=self._values(fields, path, "notValues", self._range),
                )
            case "destination.port":
                return Match(
                    destination_ports=self._values(fields, path, "values", self._port),
                    not_destination_ports=self._values(fields, path, "notValues", self._port),
                )
            case "source.namespace":
                return Match(
                    namespaces=self._values(fields, path, "values", self._string),
                    not_namespaces=self._values(fields, path, "notValues", self._string),
                )
            case "source.principal":
                return Match(
                    principals=self._values(fields, path, "values", self._principal),
                    not_principals=self._values(fields, path, "notValues", self._principal),
                )
        for name in ("values", "notValues"):
            self._values(fields, path, name, self._reader.text)
        if is_l7_condition(key):
            found.append(key)
        elif key:
            self._reader.problem(fields["key"], f"{path}.key", f"unknown key {key[:64]!r}; {nearest(key, L4_CONDITIONS)}")
        return Match()

    def _values(self, fields: Fields, path: str, key: str, read: Callable[[yaml.Node, str], _T]) -> tuple[_T, ...]:
        return tuple(self._reader.items(fields[key], f"{path}.{key}", read, least=1)) if key in fields else ()

    def _string(self, node: yaml.Node, path: str) -> StringMatch:
        text = self._reader.text(node, path)
        value = string_match(text)
        if "*" in value.value:
            self.notes.append(f"{path}: {text[:200]!r} matches nothing: a * stands at the beginning or the end, once")
        return value

    def _principal(self, node: yaml.Node, path: str) -> StringMatch:
        value = self._string(node, path)
        if value.value.startswith("spiffe://"):
            self.notes.append(f"{path}: {value.value[:200]!r} matches nothing: principals are written without spiffe://")
        return value

    def _account(self, node: yaml.Node, path: str) -> ServiceAccountMatch:
        text = self._reader.text(node, path)
        namespace, slash, account = text.rpartition("/")
        if text and ("/" in namespace or "*" in text or not account or (slash and not namespace)):
            self._reader.problem(node, path, f"{text[:64]!r} is not a service account: write name or namespace/name, no wildcard")
        return ServiceAccountMatch(namespace or self._namespace, account)

    def _range(self, node: yaml.Node, path: str) -> str:
        text = self._reader.text(node, path)
        try:
            return str(network(text if "/" in text else f"{text}/{128 if ':' in text else 32}")) if text else ""
        except ValueError:
            self._reader.problem(node, path, f"{text[:64]!r} is neither an IP address nor a range such as 10.0.0.0/8")
            return ""

    def _port(self, node: yaml.Node, path: str) -> int:
        text = self._reader.text(node, path)
        if text.isascii() and text.isdigit() and len(text) <= 5 and text[0] != "0" and int(text) <= MAX_PORT:
            return int(text)
        if text:
            self._reader.problem(node, path, f"{text[:64]!r} is not a port number in 1..{MAX_PORT}")
        return 0
