"""Certificate requests: the requester's side (a key made for each fetch) and the signer's check of one.

The shape is ztunnel's: ECDSA P-256, empty subject, one URI name, marked critical because the subject is empty
(RFC 5280 §4.1.2.6). Key generation draws from the operating system's generator; there is no other I/O.
"""

from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ztunnel.identity.errors import IssueError
from ztunnel.identity.spiffe import SpiffeId

__all__ = ["MAX_CSR", "KeyAndRequest", "check_request", "make_request"]

MAX_CSR: Final = 16 * 1024
"""Bytes of a PEM request; an honest one is under 3 KiB even with the longest identity."""


@dataclass(frozen=True, slots=True)
class KeyAndRequest:
    """A new private key (PEM, PKCS#8) and the request (PEM) signed with it."""

    key: bytes = field(repr=False)
    request: bytes


def make_request(identity: SpiffeId) -> KeyAndRequest:
    """A fresh key and a request for ``identity``."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))])
    request = (
        x509.CertificateSigningRequestBuilder(subject_name=x509.Name([]))
        .add_extension(names, critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return KeyAndRequest(pem, request.public_bytes(serialization.Encoding.PEM))


def check_request(request: bytes, identity: SpiffeId) -> ec.EllipticCurvePublicKey:
    """The public key of a PEM request that is well formed and asks for exactly ``identity``. Raises IssueError."""
    if len(request) > MAX_CSR:
        raise IssueError(f"certificate request refused: longer than {MAX_CSR} bytes")
    try:
        csr = x509.load_pem_x509_csr(request)
        key = csr.public_key()
        signed = csr.is_signature_valid
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        subject = list(csr.subject)
    except x509.ExtensionNotFound as error:
        raise IssueError("certificate request refused: it names no identity (no subject alternative name)") from error
    except Exception as error:  # the parser raises many types; a hostile request must end as ours
        raise IssueError(f"certificate request refused: not a well-formed PKCS#10 request ({error})") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IssueError("certificate request refused: the key is not ECDSA P-256")
    if not signed:
        raise IssueError("certificate request refused: its signature does not match its key")
    if subject:
        raise IssueError("certificate request refused: the subject is not empty; identities are URI names only")
    asked = list(names)
    if len(asked) != 1 or not isinstance(asked[0], x509.UniformResourceIdentifier) or asked[0].value != str(identity):
        raise IssueError(f"certificate request refused: it must name exactly {identity}")
    return key
