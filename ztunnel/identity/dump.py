"""``certificates[]`` of the admin API's ``config_dump``, in the shape `istioctl ztunnel-config certificates` reads. Pure."""

import base64
from collections.abc import Iterable
from datetime import datetime
from typing import TypedDict

from cryptography import x509

from ztunnel.identity.ca_local import pem_of
from ztunnel.identity.certificates import State, View

__all__ = ["CertificateDump", "IdentityDump", "dump_identities"]


class CertificateDump(TypedDict):
    """One certificate. ``pem``: base64 of the PEM text; ``serialNumber``: decimal; times: RFC 3339, UTC."""

    pem: str
    serialNumber: str
    validFrom: str
    expirationTime: str


class IdentityDump(TypedDict):
    """One identity. ``state``: ``Available``, ``Initializing`` or ``Unavailable: <error>``. Never holds the key."""

    identity: str
    state: str
    certChain: list[CertificateDump]
    rootCerts: list[CertificateDump]


def dump_identities(views: Iterable[View]) -> list[IdentityDump]:
    """``views`` as JSON-ready values."""
    return [_identity(view) for view in views]


def _identity(view: View) -> IdentityDump:
    state = f"{view.state}: {view.error}" if view.state is State.UNAVAILABLE else str(view.state)
    chain, roots = (b"".join(view.certificate.chain), view.certificate.roots) if view.certificate is not None else (b"", b"")
    return {"identity": view.identity, "state": state, "certChain": _certificates(chain), "rootCerts": _certificates(roots)}


def _certificates(pem: bytes) -> list[CertificateDump]:
    if not pem:
        return []
    return [
        {
            "pem": base64.b64encode(pem_of(certificate)).decode(),
            "serialNumber": str(certificate.serial_number),
            "validFrom": _time(certificate.not_valid_before_utc),
            "expirationTime": _time(certificate.not_valid_after_utc),
        }
        for certificate in x509.load_pem_x509_certificates(pem)
    ]


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
