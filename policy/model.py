"""The L4 authorization model, as Istio's ``istio.security.Authorization`` means it.

Boolean structure: a policy matches when one of its rules does; a rule when all of its clauses do; a clause when one
of its matches does; a match when all of its non-empty fields do; a field when one of its values does, a ``not_``
field when none does. Values here are already parsed and validated: nothing in this module can be malformed.
"""

from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import NewType

import msgspec

__all__ = [
    "Action",
    "Authorization",
    "Clause",
    "IpNetwork",
    "Match",
    "PolicyKey",
    "Rule",
    "Scope",
    "ServiceAccountMatch",
    "StringMatch",
    "StringMatchKind",
]

PolicyKey = NewType("PolicyKey", str)
"""``namespace/name``."""

IpNetwork = IPv4Network | IPv6Network


class Action(StrEnum):
    """What a matching policy does."""

    ALLOW = "Allow"
    DENY = "Deny"


class Scope(StrEnum):
    """Which workloads a policy applies to."""

    GLOBAL = "Global"
    NAMESPACE = "Namespace"
    WORKLOAD_SELECTOR = "WorkloadSelector"


class StringMatchKind(StrEnum):
    """How a :class:`StringMatch` compares; case-sensitive always."""

    EXACT = "Exact"
    PREFIX = "Prefix"
    SUFFIX = "Suffix"
    PRESENCE = "Presence"


class StringMatch(msgspec.Struct, frozen=True, order=True):
    """One string predicate. ``value`` is empty for ``PRESENCE``."""

    kind: StringMatchKind
    value: str = ""


class ServiceAccountMatch(msgspec.Struct, frozen=True, order=True):
    """Namespace and service account, whatever the trust domain."""

    namespace: str
    service_account: str


class Match(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """AND over the fields that are not empty."""

    namespaces: tuple[StringMatch, ...] = ()
    not_namespaces: tuple[StringMatch, ...] = ()
    principals: tuple[StringMatch, ...] = ()
    not_principals: tuple[StringMatch, ...] = ()
    source_ips: tuple[str, ...] = ()
    not_source_ips: tuple[str, ...] = ()
    destination_ips: tuple[str, ...] = ()
    not_destination_ips: tuple[str, ...] = ()
    destination_ports: tuple[int, ...] = ()
    not_destination_ports: tuple[int, ...] = ()
    service_accounts: tuple[ServiceAccountMatch, ...] = ()
    not_service_accounts: tuple[ServiceAccountMatch, ...] = ()


Clause = tuple[Match, ...]
"""OR over its matches; empty is true."""
Rule = tuple[Clause, ...]
"""AND over its clauses."""


class Authorization(msgspec.Struct, frozen=True, kw_only=True):
    """One policy. IP ranges are canonical CIDR text (``10.0.0.0/8``, ``fd00::/64``)."""

    name: str
    namespace: str
    scope: Scope
    action: Action
    rules: tuple[Rule, ...] = ()
    dry_run: bool = False

    @property
    def key(self) -> PolicyKey:
        """``namespace/name``, as workloads name it."""
        return PolicyKey(f"{self.namespace}/{self.name}")
