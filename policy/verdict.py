"""What is asked of policy, and what it answers.

A caller (the inbound path, the same-node path, the replay of recorded traffic) hands in a :class:`Destination` and a
:class:`Connection`; the evaluators hand back a :class:`Verdict` that names the policy and the rule that decided.
"""

from enum import StrEnum

import msgspec

from policy.model import Action, PolicyKey

__all__ = ["NO_RULE", "Connection", "Destination", "DryRun", "Unusable", "Verdict", "VerdictReason"]

NO_RULE = -1
"""``rule`` where no rule decided."""


class Connection(msgspec.Struct, frozen=True):
    """One connection as the destination sees it.

    ``identity`` is the peer's whole SPIFFE id (``spiffe://cluster.local/ns/shop/sa/web``), ``None`` when the peer
    proved none. ``source_ip`` is the TCP peer's address; ``destination_ip`` and ``destination_port`` are where the bytes
    really go, after service and target port are resolved. IPv4-mapped IPv6 addresses count as IPv4.
    """

    identity: str | None
    source_ip: str
    destination_ip: str
    destination_port: int


class Destination(msgspec.Struct, frozen=True, cache_hash=True):
    """The workload that is connected to: its namespace, and the keys of the policies that it names."""

    namespace: str
    policies: tuple[str, ...] = ()


class Unusable(msgspec.Struct, frozen=True):
    """A policy that could not be understood: it denies everything to whom it would have applied."""

    key: PolicyKey
    cause: str


class VerdictReason(StrEnum):
    """Why a connection is allowed or refused."""

    DENIED_BY_POLICY = "denied_by_policy"
    """A DENY policy matched."""
    ALLOWED_BY_POLICY = "allowed_by_policy"
    """An ALLOW policy matched, and no DENY policy did."""
    NO_ALLOW_POLICIES = "no_allow_policies"
    """No ALLOW policy applies here: allowed by default."""
    NOT_ALLOWED = "not_allowed"
    """ALLOW policies apply here and none matched."""
    UNUSABLE_POLICY = "unusable_policy"
    """A policy that applies here could not be understood, or is named by the workload and not known."""


class DryRun(msgspec.Struct, frozen=True):
    """What a dry-run policy would have said.

    One for each dry-run policy that matched (``rule``: its lowest matching rule); and, when dry-run ALLOW policies apply
    and none of them matched, one with ``matched`` false that names the first of them.
    """

    policy: PolicyKey
    action: Action
    matched: bool
    rule: int = NO_RULE

    def __str__(self) -> str:
        if self.matched:
            return f"dry-run: would be {'denied' if self.action is Action.DENY else 'allowed'} by {self.policy} (rule {self.rule})"
        return f"dry-run: would not be allowed: no dry-run allow policy matches, such as {self.policy}"


class Verdict(msgspec.Struct, frozen=True):
    """The answer. ``policy`` and ``rule`` are what decided: of all that match, the lowest key and then the lowest rule.

    ``rule`` counts from 0, as in the YAML path ``rules[0]``; it is :data:`NO_RULE`, and ``policy`` may be empty, where a
    default decided. ``cause`` says what is wrong with an unusable policy.
    """

    allowed: bool
    reason: VerdictReason
    policy: PolicyKey = PolicyKey("")
    rule: int = NO_RULE
    cause: str = ""
    dry_run: tuple[DryRun, ...] = ()

    def explain(self) -> str:
        """One sentence for the operator, dry-run results included."""
        return "; ".join([self._decision(), *map(str, self.dry_run)])

    def __str__(self) -> str:
        return self.explain()

    def _decision(self) -> str:
        match self.reason:
            case VerdictReason.DENIED_BY_POLICY:
                return f"explicitly denied by: {self.policy} (rule {self.rule})"
            case VerdictReason.ALLOWED_BY_POLICY:
                return f"allowed by: {self.policy} (rule {self.rule})"
            case VerdictReason.NO_ALLOW_POLICIES:
                return "allowed by default: no allow policies apply"
            case VerdictReason.NOT_ALLOWED:
                return "allow policies exist, but none allowed"
            case VerdictReason.UNUSABLE_POLICY:
                return f"refused: policy {self.policy} cannot be used: {self.cause}"
