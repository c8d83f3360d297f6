"""Mesh identities: ``spiffe://<trust domain>/ns/<namespace>/sa/<service account>`` and nothing else.

Called wherever a name from a certificate, a CSR or the state is taken for an identity. The parse is total and strict:
exactly these segments, SPIFFE's characters (SPIFFE-ID §2), no port, user, query, fragment or percent-encoding, so that
one identity has one spelling and comparing texts is comparing identities. Pure.
"""

import re
from dataclasses import dataclass
from typing import Final, NewType

from ztunnel.identity.errors import SpiffeError

__all__ = ["MAX_IDENTITY", "Namespace", "ServiceAccount", "SpiffeId", "TrustDomain", "is_segment", "parse_spiffe", "spiffe_or_none"]

TrustDomain = NewType("TrustDomain", str)
Namespace = NewType("Namespace", str)
ServiceAccount = NewType("ServiceAccount", str)

MAX_IDENTITY: Final = 2048
"""Bytes of an identity (SPIFFE-ID §2.3)."""
MAX_TRUST_DOMAIN: Final = 255
"""Bytes of a trust domain (SPIFFE-ID §2.3)."""

_TRUST_DOMAIN = re.compile(rf"[a-z0-9._-]{{1,{MAX_TRUST_DOMAIN}}}", re.ASCII)
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_DOTS = (".", "..")


def is_segment(text: str) -> bool:
    """Whether ``text`` can be a namespace or service account of an identity."""
    return len(text) <= MAX_IDENTITY and _SEGMENT.fullmatch(text) is not None and text not in _DOTS


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """One identity; its parts are checked on construction. ``str()`` is the URI. Raises SpiffeError."""

    trust_domain: TrustDomain
    namespace: Namespace
    service_account: ServiceAccount

    def __post_init__(self) -> None:
        if _TRUST_DOMAIN.fullmatch(self.trust_domain) is None:
            raise SpiffeError(
                f"trust domain {self.trust_domain[:80]!r} may have only a-z 0-9 . _ - and 1 to {MAX_TRUST_DOMAIN} of them"
            )
        for what, value in (("namespace", self.namespace), ("service account", self.service_account)):
            if not is_segment(value):
                raise SpiffeError(f"{what} {value[:80]!r} may have only A-Z a-z 0-9 . _ - and be neither empty, '.' nor '..'")
        if len(str(self)) > MAX_IDENTITY:
            raise SpiffeError(f"identity is longer than {MAX_IDENTITY} bytes")

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"


def parse_spiffe(text: str) -> SpiffeId:
    """The identity ``text`` spells. Raises SpiffeError for anything else."""
    if len(text) > MAX_IDENTITY:
        raise SpiffeError(f"identity is longer than {MAX_IDENTITY} bytes")
    match text.split("/"):
        case ["spiffe:", "", trust_domain, "ns", namespace, "sa", service_account]:
            return SpiffeId(TrustDomain(trust_domain), Namespace(namespace), ServiceAccount(service_account))
        case _:
            raise SpiffeError(f"{text[:120]!r} is not spiffe://<trust domain>/ns/<namespace>/sa/<service account>")


def spiffe_or_none(text: str) -> SpiffeId | None:
    """As :func:`parse_spiffe`; None for what is not an identity (names in certificates that are not ours to judge)."""
    try:
        return parse_spiffe(text)
    except SpiffeError:
        return None
