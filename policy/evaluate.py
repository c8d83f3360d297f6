"""The reference evaluator: slow, and short enough to be seen to be right.

It scans every policy in the order in which the definition reads (Istio's ztunnel, L4 authorization). ``PolicyIndex``
gives the same answers and is what the proxy uses; tests hold the two against each other. ``ambient``'s explainer and
replay may call this one, where a trace matters more than time.
"""

from collections.abc import Callable, Iterable
from ipaddress import ip_network
from typing import Literal, TypeVar

import msgspec

from policy.address import parse_identity, parse_ip
from policy.model import (
    Action,
    Authorization,
    Clause,
    Match,
    PolicyKey,
    Rule,
    Scope,
    ServiceAccountMatch,
    StringMatch,
    StringMatchKind,
)
from policy.verdict import NO_RULE, Connection, Destination, DryRun, Unusable, Verdict, VerdictReason

__all__ = ["UNKNOWN_POLICY", "applies", "evaluate", "match_matches", "matching_rule", "rule_matches", "string_matches"]

_T = TypeVar("_T")

UNKNOWN_POLICY = "the workload names it and it is not known here: wait for it, or remove the name from the workload"
"""The ``cause`` for a policy that a workload names and nobody has."""


def evaluate(
    policies: Iterable[Authorization],
    destination: Destination,
    connection: Connection,
    *,
    unusable: Iterable[tuple[Scope, str, Unusable]] = (),
    unknown_policy: Literal["refuse", "ignore"] = "refuse",
) -> Verdict:
    """Decide, in this order: DENY; policies that cannot be used; no ALLOW, so allowed; ALLOW; refused.

    Args:
        policies: all there are, in any order; keys are unique.
        destination: the workload connected to.
        connection: what is known of the connection.
        unusable: (scope, namespace, marker) of policies that could not be understood; keys are not those of ``policies``.
        unknown_policy: ``refuse`` treats a name that the workload lists and nobody knows as an unusable policy; Istio's
            own proxy does ``ignore``, which leaves a window in which a DENY is not enforced.

    Raises:
        MalformedConnectionError: the identity or an address of ``connection`` is not one.
    """
    _refuse_malformed(connection)
    everything = sorted(policies, key=lambda policy: policy.key)
    markers = list(unusable)
    here = [policy for policy in everything if applies(policy.scope, policy.namespace, policy.key, destination)]
    broken = [marker for scope, namespace, marker in markers if applies(scope, namespace, marker.key, destination)]
    if unknown_policy == "refuse":
        known = {policy.key for policy in everything} | {marker.key for _, _, marker in markers}
        broken += [Unusable(PolicyKey(name), UNKNOWN_POLICY) for name in destination.policies if name not in known]
    verdict = _decide([policy for policy in here if not policy.dry_run], broken, connection)
    return msgspec.structs.replace(verdict, dry_run=_dry_run([policy for policy in here if policy.dry_run], connection))


def _refuse_malformed(connection: Connection) -> None:
    if connection.identity is not None:
        parse_identity(connection.identity)
    parse_ip(connection.source_ip)
    parse_ip(connection.destination_ip)


def applies(scope: Scope, namespace: str, key: str, destination: Destination) -> bool:
    """Say whether a policy is to be looked at for this destination. A named policy is, whatever its scope."""
    return scope is Scope.GLOBAL or (scope is Scope.NAMESPACE and namespace == destination.namespace) or key in destination.policies


def _decide(policies: list[Authorization], broken: list[Unusable], connection: Connection) -> Verdict:
    for policy in policies:
        if policy.action is Action.DENY and (rule := matching_rule(policy, connection)) != NO_RULE:
            return Verdict(False, VerdictReason.DENIED_BY_POLICY, policy.key, rule)
    if broken:
        first = min(broken, key=lambda marker: marker.key)
        return Verdict(False, VerdictReason.UNUSABLE_POLICY, first.key, cause=first.cause)
    allowing = [policy for policy in policies if policy.action is Action.ALLOW]
    if not allowing:
        return Verdict(True, VerdictReason.NO_ALLOW_POLICIES)
    for policy in allowing:
        if (rule := matching_rule(policy, connection)) != NO_RULE:
            return Verdict(True, VerdictReason.ALLOWED_BY_POLICY, policy.key, rule)
    return Verdict(False, VerdictReason.NOT_ALLOWED)


def _dry_run(policies: list[Authorization], connection: Connection) -> tuple[DryRun, ...]:
    rules = {policy.key: matching_rule(policy, connection) for policy in policies}
    found = [DryRun(policy.key, policy.action, True, rules[policy.key]) for policy in policies if rules[policy.key] != NO_RULE]
    allowing = [policy.key for policy in policies if policy.action is Action.ALLOW]
    if allowing and all(rules[key] == NO_RULE for key in allowing):
        found.append(DryRun(allowing[0], Action.ALLOW, False))
    return tuple(found)


def matching_rule(policy: Authorization, connection: Connection) -> int:
    """Return the first rule that matches, or :data:`NO_RULE`. A policy without rules never matches."""
    for index, rule in enumerate(policy.rules):
        if rule_matches(rule, connection):
            return index
    return NO_RULE


def rule_matches(rule: Rule, connection: Connection) -> bool:
    """AND over clauses; none at all is true."""
    return all(_clause_matches(clause, connection) for clause in rule)


def _clause_matches(clause: Clause, connection: Connection) -> bool:
    return not clause or any(match_matches(match, connection) for match in clause)


def match_matches(match: Match, connection: Connection) -> bool:
    """AND over the fields that are not empty; a match with all fields empty is skipped, so it does not match."""
    if match == Match():
        return False
    if connection.identity is None:
        principal, namespace, account = None, "", None
    else:
        peer = parse_identity(connection.identity)
        principal, namespace = peer.principal, peer.namespace
        account = ServiceAccountMatch(peer.namespace, peer.service_account)
    source, target = parse_ip(connection.source_ip), parse_ip(connection.destination_ip)

    def is_principal(value: StringMatch) -> bool:
        return principal is not None and string_matches(value, principal)

    def is_namespace(value: StringMatch) -> bool:
        return string_matches(value, namespace)

    return (
        _holds(match.namespaces, match.not_namespaces, is_namespace)
        and _holds(match.principals, match.not_principals, is_principal)
        and _holds(match.source_ips, match.not_source_ips, lambda value: source in ip_network(value))
        and _holds(match.destination_ips, match.not_destination_ips, lambda value: target in ip_network(value))
        and _holds(match.destination_ports, match.not_destination_ports, lambda value: value == connection.destination_port)
        and _holds(match.service_accounts, match.not_service_accounts, lambda value: value == account)
    )


def _holds(wanted: tuple[_T, ...], unwanted: tuple[_T, ...], predicate: Callable[[_T], bool]) -> bool:
    return (not wanted or any(map(predicate, wanted))) and not any(map(predicate, unwanted))


def string_matches(value: StringMatch, text: str) -> bool:
    """Compare, case-sensitively; presence needs a text that is not empty."""
    match value.kind:
        case StringMatchKind.EXACT:
            return text == value.value
        case StringMatchKind.PREFIX:
            return text.startswith(value.value)
        case StringMatchKind.SUFFIX:
            return text.endswith(value.value)
        case StringMatchKind.PRESENCE:
            return text != ""
