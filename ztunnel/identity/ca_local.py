"""A certificate authority in memory: signs leaf certificates with a key loaded by :mod:`ztunnel.identity.ca_files`.

Pure but for the serial number and signature randomness of the library; time is passed in. Called by the local issuer
and by tests. Leaves are as Istio's: empty subject, one critical URI name, client and server use.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from ztunnel.identity.csr import check_request
from ztunnel.identity.errors import IssueError
from ztunnel.identity.spiffe import SpiffeId

__all__ = ["BACKDATE", "SECRET_TTL", "CaKey", "LocalCa", "hash_for", "leaf_usage", "pem_of"]

SECRET_TTL: Final = 86_400.0
"""Seconds a leaf is valid (ztunnel's SECRET_TTL default)."""
BACKDATE: Final = 120.0
"""Seconds ``not_before`` lies in the past, so that a peer whose clock is a little behind accepts a fresh leaf
(Istio's CA: 2 minutes)."""

CaKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def pem_of(certificate: x509.Certificate) -> bytes:
    """PEM of one certificate."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def hash_for(key: CaKey) -> hashes.SHA256 | None:
    """The digest to sign with: Ed25519 has its own."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def leaf_usage() -> x509.KeyUsage:
    """digitalSignature alone: TLS 1.3 needs no more."""
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True, slots=True)
class LocalCa:
    """A usable CA: its key fits its certificate, its chain reaches one of its roots.

    ``intermediates`` are sent after each leaf, signing certificate first; empty when that is itself a root. ``warnings`` are
    sentences about its files for the log.
    """

    certificate: x509.Certificate
    key: CaKey = field(repr=False)
    intermediates: tuple[x509.Certificate, ...]
    roots: tuple[x509.Certificate, ...]
    warnings: tuple[str, ...] = ()

    @property
    def roots_pem(self) -> bytes:
        """Every root, PEM."""
        return b"".join(pem_of(root) for root in self.roots)

    def issue(self, identity: SpiffeId, request: bytes, now: float, ttl: float = SECRET_TTL) -> tuple[bytes, ...]:
        """Sign a PEM request; the chain in PEM, leaf first, without the root.

        ``now``: Unix seconds; ``ttl``: seconds from now. A leaf never outlives the certificates above it, as it would be refused
        then anyway and its renewal planned too late. Raises IssueError.
        """
        public_key = check_request(request, identity)
        above = (self.certificate, *self.intermediates)
        not_after = min(datetime.fromtimestamp(now + ttl, UTC), *(c.not_valid_after_utc for c in above))
        if not_after.timestamp() <= now:
            raise IssueError(
                f"the CA certificate {self.certificate.subject.rfc4514_string()!r} or one above it "
                "has expired; put a new one in LOCAL_CA_DIR"
            )
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.fromtimestamp(now - BACKDATE, UTC))
            .not_valid_after(not_after)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(leaf_usage(), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(_authority_key_identifier(self.certificate), critical=False)
            .sign(self.key, hash_for(self.key))
        )
        return (pem_of(leaf), *(pem_of(c) for c in self.intermediates))


def _authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Points at the issuer's own subject key identifier, which need not be the hash we would make (RFC 5280 §4.2.1.1)."""
    try:
        ski = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier(x509.SubjectKeyIdentifier.from_public_key(issuer.public_key()).digest, None, None)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski)
