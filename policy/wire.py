"""Authorization resources between bytes and values (``type.googleapis.com/istio.security.Authorization``).

Reading is total and strict: a message that holds anything not understood (an unknown enum value, a string match without
a kind, an address of another length, a field of a newer control plane) is refused whole, since leaving a part out could
make the policy wider. The caller answers with a NACK and ``PolicyIndex.mark_unusable``. Called by the xDS client
(``from_wire``) and the xDS server (``to_wire``).
"""

from collections.abc import Iterable
from ipaddress import ip_network
from typing import Final

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from policy.address import MAX_PORT, network_of_bytes
from policy.errors import PolicyWireError
from policy.model import Action, Authorization, Clause, Match, Scope, ServiceAccountMatch, StringMatch, StringMatchKind
from policy.proto import authorization_pb2 as pb

__all__ = ["MAX_BYTES", "MAX_MATCHES", "MAX_VALUES", "TYPE_URL", "from_wire", "to_wire"]

TYPE_URL: Final = "type.googleapis.com/istio.security.Authorization"
MAX_BYTES = 4 << 20
"""Size of one message (gRPC's default limit of a whole response)."""
MAX_MATCHES = 100_000
"""Rules, clauses and matches in one policy. An object of Kubernetes (1.5 MiB) cannot hold as many."""
MAX_VALUES = 200_000
"""Values in all fields of one policy."""

_SCOPES = {pb.GLOBAL: Scope.GLOBAL, pb.NAMESPACE: Scope.NAMESPACE, pb.WORKLOAD_SELECTOR: Scope.WORKLOAD_SELECTOR}
_ACTIONS = {pb.ALLOW: Action.ALLOW, pb.DENY: Action.DENY}
_SCOPE_NUMBERS = {scope: number for number, scope in _SCOPES.items()}
_ACTION_NUMBERS = {action: number for number, action in _ACTIONS.items()}


class _NotUnderstoodError(Exception):
    pass


def from_wire(data: bytes) -> Authorization:
    """Read one message.

    Raises:
        PolicyWireError: it is not one, is beyond a bound, or holds something not understood; with the place.
    """
    if len(data) > MAX_BYTES:
        raise PolicyWireError(f"{len(data)} bytes, more than {MAX_BYTES}")
    message = pb.Authorization()
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise PolicyWireError("not an Authorization message") from None
    scope = _SCOPES.get(message.scope)
    try:
        return _authorization(message, scope)
    except _NotUnderstoodError as error:
        raise PolicyWireError(str(error), name=message.name, namespace=message.namespace, scope=scope) from None


def _authorization(message: pb.Authorization, scope: Scope | None) -> Authorization:
    _known(message, "policy")
    if not message.name:
        raise _NotUnderstoodError("it has no name")
    if scope is None:
        raise _NotUnderstoodError(f"unknown scope {message.scope}")
    action = _ACTIONS.get(message.action)
    if action is None:
        raise _NotUnderstoodError(f"unknown action {message.action}")
    reader = _Reader()
    rules = []
    for number, rule in enumerate(message.rules):
        where = f"rules[{number}]"
        _known(rule, where)
        reader.count_match(where)
        rules.append(tuple([reader.clause(clause, f"{where}[{index}]") for index, clause in enumerate(rule.clauses)]))
    return Authorization(
        name=message.name,
        namespace=message.namespace,
        scope=scope,
        action=action,
        rules=tuple(rules),
        dry_run=message.dry_run,
    )


def _known(message: Message, where: str) -> None:
    unknown = UnknownFieldSet(message)
    if len(unknown):
        raise _NotUnderstoodError(f"{where} has the unknown field {unknown[0].field_number}: from a newer control plane?")


class _Reader:
    """Reads rules and counts what it reads."""

    def __init__(self) -> None:
        self._matches = 0
        self._values = 0

    def count_match(self, where: str) -> None:
        self._matches += 1
        if self._matches > MAX_MATCHES:
            raise _NotUnderstoodError(f"more than {MAX_MATCHES} rules, clauses and matches, at {where}")

    def clause(self, clause: pb.Clause, where: str) -> Clause:
        _known(clause, where)
        self.count_match(where)
        return tuple([self._match(match, f"{where}[{index}]") for index, match in enumerate(clause.matches)])

    def _match(self, match: pb.Match, where: str) -> Match:
        _known(match, where)
        self.count_match(where)
        self._values += sum(len(values) for _, values in match.ListFields())
        if self._values > MAX_VALUES:
            raise _NotUnderstoodError(f"more than {MAX_VALUES} values, at {where}")
        return Match(
            namespaces=_strings(match.namespaces, f"{where}.namespaces"),
            not_namespaces=_strings(match.not_namespaces, f"{where}.not_namespaces"),
            principals=_strings(match.principals, f"{where}.principals"),
            not_principals=_strings(match.not_principals, f"{where}.not_principals"),
            source_ips=_ranges(match.source_ips, f"{where}.source_ips"),
            not_source_ips=_ranges(match.not_source_ips, f"{where}.not_source_ips"),
            destination_ips=_ranges(match.destination_ips, f"{where}.destination_ips"),
            not_destination_ips=_ranges(match.not_destination_ips, f"{where}.not_destination_ips"),
            destination_ports=_ports(match.destination_ports, f"{where}.destination_ports"),
            not_destination_ports=_ports(match.not_destination_ports, f"{where}.not_destination_ports"),
            service_accounts=_accounts(match.service_accounts, f"{where}.service_accounts"),
            not_service_accounts=_accounts(match.not_service_accounts, f"{where}.not_service_accounts"),
        )


def _strings(values: Iterable[pb.StringMatch], where: str) -> tuple[StringMatch, ...]:
    found = []
    for value in values:
        _known(value, where)
        match value.WhichOneof("match_type"):
            case "exact":
                found.append(StringMatch(StringMatchKind.EXACT, value.exact))
            case "prefix":
                found.append(StringMatch(StringMatchKind.PREFIX, value.prefix))
            case "suffix":
                found.append(StringMatch(StringMatchKind.SUFFIX, value.suffix))
            case "presence":
                _known(value.presence, where)
                found.append(StringMatch(StringMatchKind.PRESENCE))
            case None:
                raise _NotUnderstoodError(f"{where} has a string match without a kind")
    return tuple(found)


def _ranges(values: Iterable[pb.Address], where: str) -> tuple[str, ...]:
    found = []
    for value in values:
        _known(value, where)
        try:
            found.append(str(network_of_bytes(value.address, value.length)))
        except ValueError as error:
            raise _NotUnderstoodError(f"{where}: {error}") from None
    return tuple(found)


def _ports(values: Iterable[int], where: str) -> tuple[int, ...]:
    found = tuple(values)
    for port in found:
        if not 1 <= port <= MAX_PORT:
            raise _NotUnderstoodError(f"{where}: port {port} is not in 1..{MAX_PORT}")
    return found


def _accounts(values: Iterable[pb.ServiceAccountMatch], where: str) -> tuple[ServiceAccountMatch, ...]:
    found = []
    for value in values:
        _known(value, where)
        if not (value.namespace and value.service_account):
            raise _NotUnderstoodError(f"{where} has a service account without namespace or name")
        found.append(ServiceAccountMatch(value.namespace, value.service_account))
    return tuple(found)


def to_wire(policy: Authorization) -> bytes:
    """Write one message; equal policies give equal bytes."""
    message = pb.Authorization(
        name=policy.name,
        namespace=policy.namespace,
        scope=_SCOPE_NUMBERS[policy.scope],
        action=_ACTION_NUMBERS[policy.action],
        dry_run=policy.dry_run,
        rules=[
            pb.Rule(clauses=[pb.Clause(matches=[_match_to_wire(match) for match in clause]) for clause in rule])
            for rule in policy.rules
        ],
    )
    return message.SerializeToString(deterministic=True)


def _match_to_wire(match: Match) -> pb.Match:
    return pb.Match(
        namespaces=map(_string_to_wire, match.namespaces),
        not_namespaces=map(_string_to_wire, match.not_namespaces),
        principals=map(_string_to_wire, match.principals),
        not_principals=map(_string_to_wire, match.not_principals),
        source_ips=map(_range_to_wire, match.source_ips),
        not_source_ips=map(_range_to_wire, match.not_source_ips),
        destination_ips=map(_range_to_wire, match.destination_ips),
        not_destination_ips=map(_range_to_wire, match.not_destination_ips),
        destination_ports=match.destination_ports,
        not_destination_ports=match.not_destination_ports,
        service_accounts=map(_account_to_wire, match.service_accounts),
        not_service_accounts=map(_account_to_wire, match.not_service_accounts),
    )


def _string_to_wire(value: StringMatch) -> pb.StringMatch:
    match value.kind:
        case StringMatchKind.EXACT:
            return pb.StringMatch(exact=value.value)
        case StringMatchKind.PREFIX:
            return pb.StringMatch(prefix=value.value)
        case StringMatchKind.SUFFIX:
            return pb.StringMatch(suffix=value.value)
        case StringMatchKind.PRESENCE:
            return pb.StringMatch(presence={})


def _range_to_wire(text: str) -> pb.Address:
    found = ip_network(text)
    return pb.Address(address=found.network_address.packed, length=found.prefixlen)


def _account_to_wire(value: ServiceAccountMatch) -> pb.ServiceAccountMatch:
    return pb.ServiceAccountMatch(namespace=value.namespace, service_account=value.service_account)
