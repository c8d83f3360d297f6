"""The form that policies have in ztunnel's static file and in its config dump.

A policy is ``{name, namespace, scope, action, rules: [[[match]]], dryRun}``, a match has camelCase fields, a string match
is ``{Exact: x}``, ``{Prefix: x}``, ``{Suffix: x}`` or ``{Presence: []}`` (ztunnel ``LOCAL_XDS_PATH``). Reading is strict: what
is not understood is an error with its YAML path, and nothing of that policy is used. Called by the reader of the static
file (``parse_static``, which gets plain parsed YAML) and by ``config_dump`` (``to_static``).
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TypeVar

from policy.address import MAX_PORT, network
from policy.errors import PolicyFormError, nearest
from policy.model import Action, Authorization, Clause, Match, Rule, Scope, ServiceAccountMatch, StringMatch, StringMatchKind

__all__ = ["parse_static", "to_static"]

_T = TypeVar("_T")
_E = TypeVar("_E", bound=StrEnum)

MAX_PROBLEMS = 100
"""Problems collected before reading stops: enough to mend a file, bounded for one that is something else."""

_POLICY_KEYS = ("name", "namespace", "scope", "action", "rules", "dryRun")
_REQUIRED = ("name", "namespace", "scope", "action", "dryRun")


def parse_static(value: object, path: str) -> Authorization:
    """Read one policy. ``path`` is its place in the file (``policies[3]``), and begins every problem's path.

    Raises:
        PolicyFormError: with every problem found.
    """
    reader = _Reader()
    policy = reader.policy(value, path)
    if policy is None or reader.problems:
        raise PolicyFormError(tuple(reader.problems))
    return policy


class _TooManyError(Exception):
    pass


class _Reader:
    """Collects problems. A reading method that has found one returns something harmless: the result is thrown away."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, str]] = []

    def policy(self, value: object, path: str) -> Authorization | None:
        try:
            return self._policy(value, path)
        except _TooManyError:
            return None

    def _policy(self, value: object, path: str) -> Authorization | None:
        fields = self._mapping(value, path, _POLICY_KEYS)
        if fields is None:
            return None
        for key in _REQUIRED:
            if key not in fields:
                self._problem(f"{path}.{key}", "required and missing")
        name = self._text(fields.get("name", "-"), f"{path}.name")
        namespace = self._text(fields.get("namespace", "-"), f"{path}.namespace")
        scope = self._choice(Scope, fields.get("scope", Scope.GLOBAL.value), f"{path}.scope")
        action = self._choice(Action, fields.get("action", Action.DENY.value), f"{path}.action")
        dry_run = fields.get("dryRun", False)
        if not isinstance(dry_run, bool):
            self._problem(f"{path}.dryRun", f"must be true or false, is {_kind(dry_run)}")
        rules = self._list(fields.get("rules", []), f"{path}.rules", self._rule)
        if scope is None or action is None:
            return None
        return Authorization(name=name, namespace=namespace, scope=scope, action=action, rules=rules, dry_run=dry_run is True)

    def _rule(self, value: object, path: str) -> Rule:
        return self._list(value, path, self._clause)

    def _clause(self, value: object, path: str) -> Clause:
        return self._list(value, path, self._match)

    def _match(self, value: object, path: str) -> Match:
        fields = self._mapping(value, path, _MATCH_KEYS) or {}

        def read(key: str, item: Callable[[object, str], _T]) -> tuple[_T, ...]:
            return self._list(fields.get(key, []), f"{path}.{key}", item)

        return Match(
            namespaces=read("namespaces", self._string),
            not_namespaces=read("notNamespaces", self._string),
            principals=read("principals", self._string),
            not_principals=read("notPrincipals", self._string),
            source_ips=read("sourceIps", self._range),
            not_source_ips=read("notSourceIps", self._range),
            destination_ips=read("destinationIps", self._range),
            not_destination_ips=read("notDestinationIps", self._range),
            destination_ports=read("destinationPorts", self._port),
            not_destination_ports=read("notDestinationPorts", self._port),
            service_accounts=read("serviceAccounts", self._account),
            not_service_accounts=read("notServiceAccounts", self._account),
        )

    def _string(self, value: object, path: str) -> StringMatch:
        kinds = [kind.value for kind in StringMatchKind]
        fields = self._mapping(value, path, kinds) or {}
        if len(fields) != 1:
            if isinstance(value, Mapping):
                self._problem(path, f"must have exactly one of {', '.join(kinds)}")
            return StringMatch(StringMatchKind.EXACT)
        key, given = next(iter(fields.items()))
        kind = StringMatchKind(key)
        if kind is not StringMatchKind.PRESENCE:
            return StringMatch(kind, self._text(given, f"{path}.{key}"))
        if given != []:
            self._problem(f"{path}.{key}", "must be an empty list: {Presence: []}")
        return StringMatch(kind)

    def _account(self, value: object, path: str) -> ServiceAccountMatch:
        keys = ("namespace", "serviceAccount")
        fields = self._mapping(value, path, keys)
        if fields is None:
            return ServiceAccountMatch("", "")
        for key in keys:
            if key not in fields:
                self._problem(f"{path}.{key}", "required and missing")
        return ServiceAccountMatch(*(self._text(fields.get(key, "-"), f"{path}.{key}") for key in keys))

    def _range(self, value: object, path: str) -> str:
        try:
            return str(network(self._text(value, path) or "::/0"))
        except ValueError as error:
            self._problem(path, str(error))
            return ""

    def _port(self, value: object, path: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self._problem(path, f"must be a port number, is {_kind(value)}")
        elif not 1 <= value <= MAX_PORT:
            self._problem(path, f"port {str(value)[:20] if abs(value) < 10**20 else 'number'} is not in 1..{MAX_PORT}")
        else:
            return value
        return 0

    def _text(self, value: object, path: str) -> str:
        if not isinstance(value, str):
            self._problem(path, f"must be a string, is {_kind(value)}")
        elif not value:
            self._problem(path, "must not be empty")
        else:
            return value
        return ""

    def _choice(self, choices: type[_E], value: object, path: str) -> _E | None:
        valid = [choice.value for choice in choices]
        if isinstance(value, str) and value in valid:
            return choices(value)
        if isinstance(value, str):
            self._problem(path, f"unknown {choices.__name__.lower()} {value[:64]!r}; {nearest(value, valid)}")
        else:
            self._problem(path, f"must be one of {', '.join(valid)}, is {_kind(value)}")
        return None

    def _mapping(self, value: object, path: str, valid: list[str] | tuple[str, ...]) -> dict[str, object] | None:
        if not isinstance(value, Mapping):
            self._problem(path, f"must be a mapping, is {_kind(value)}")
            return None
        fields: dict[str, object] = {}
        for key, item in value.items():
            if isinstance(key, str) and key in valid:
                fields[key] = item
            else:
                self._problem(path, f"unknown key {str(key)[:64]!r}; {nearest(str(key)[:64], valid)}")
        return fields

    def _list(self, value: object, path: str, item: Callable[[object, str], _T]) -> tuple[_T, ...]:
        if not isinstance(value, list):
            self._problem(path, f"must be a list, is {_kind(value)}")
            return ()
        return tuple([item(element, f"{path}[{index}]") for index, element in enumerate(value)])

    def _problem(self, path: str, cause: str) -> None:
        self.problems.append((path, cause))
        if len(self.problems) >= MAX_PROBLEMS:
            raise _TooManyError


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    return _KINDS.get(type(value), f"a {type(value).__name__}")


_KINDS: dict[type, str] = {
    type(None): "empty",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
}
_FIELDS: tuple[tuple[str, str], ...] = (
    ("namespaces", "namespaces"),
    ("notNamespaces", "not_namespaces"),
    ("principals", "principals"),
    ("notPrincipals", "not_principals"),
    ("serviceAccounts", "service_accounts"),
    ("notServiceAccounts", "not_service_accounts"),
    ("sourceIps", "source_ips"),
    ("notSourceIps", "not_source_ips"),
    ("destinationIps", "destination_ips"),
    ("notDestinationIps", "not_destination_ips"),
    ("destinationPorts", "destination_ports"),
    ("notDestinationPorts", "not_destination_ports"),
)
_MATCH_KEYS = tuple(key for key, _ in _FIELDS)


def to_static(policy: Authorization) -> dict[str, object]:
    """Write one policy as plain values, the shape of ztunnel's ``config_dump``; empty fields of a match are left out."""
    return {
        "name": policy.name,
        "namespace": policy.namespace,
        "scope": policy.scope.value,
        "action": policy.action.value,
        "rules": [[[_match_to_static(match) for match in clause] for clause in rule] for rule in policy.rules],
        "dryRun": policy.dry_run,
    }


def _match_to_static(match: Match) -> dict[str, object]:
    return {key: [_value_to_static(value) for value in values] for key, name in _FIELDS if (values := getattr(match, name))}


def _value_to_static(value: StringMatch | ServiceAccountMatch | str | int) -> object:
    match value:
        case StringMatch():
            return {value.kind.value: [] if value.kind is StringMatchKind.PRESENCE else value.value}
        case ServiceAccountMatch():
            return {"namespace": value.namespace, "serviceAccount": value.service_account}
        case _:
            return value
