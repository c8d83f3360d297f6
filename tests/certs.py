"""Certificates for tests, good and hostile: a CA tree and leaves whose every property can be wrong.

``mint`` gives the pieces as PEM, ready for a TLS context; defaults make a certificate the mesh accepts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from ztunnel.identity.ca_local import leaf_usage, pem_of

__all__ = ["Authority", "Minted", "authority", "mint", "pem_key", "write_ca"]

BOTH_USES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA: certificate, key, and the certificates between it and its root (itself first; empty for a root)."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    root: x509.Certificate
    path: tuple[x509.Certificate, ...] = ()


@dataclass(frozen=True, slots=True)
class Minted:
    """A leaf: PEM chain (leaf first), PKCS#8 key, root, and the leaf itself."""

    chain: tuple[bytes, ...]
    key: bytes
    roots: bytes
    leaf: x509.Certificate


def pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#8 PEM."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def authority(
    name: str = "test root",
    *,
    parent: Authority | None = None,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    ca: bool = True,
    path_length: int | None = None,
    cert_sign: bool = True,
) -> Authority:
    """A root, or an intermediate under ``parent``; valid from yesterday for ten days unless told otherwise."""
    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    issuer, signer = (parent.certificate.subject, parent.key) if parent else (_name(name), key)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before or now - timedelta(days=1))
        .not_valid_after(not_after or now + timedelta(days=10))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(x509.KeyUsage(True, False, False, False, False, cert_sign, True, False, False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    if parent is None:
        return Authority(certificate, key, certificate)
    return Authority(certificate, key, parent.root, (certificate, *parent.path))


def mint(
    by: Authority,
    *sans: str | x509.GeneralName,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
    eku: Sequence[ObjectIdentifier] | None = BOTH_USES,
    subject: x509.Name | None = None,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> Minted:
    """A leaf for ``sans`` (texts are URIs; none at all: no SAN extension). ``eku`` None: no such extension."""
    now = datetime.now(UTC)
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject or x509.Name([]))
        .issuer_name(by.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before or now - timedelta(minutes=2))
        .not_valid_after(not_after or now + timedelta(hours=24))
        .add_extension(leaf_usage(), critical=True)
    )
    if sans:
        names = [x509.UniformResourceIdentifier(san) if isinstance(san, str) else san for san in sans]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    if eku is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(eku), critical=False)
    leaf = builder.sign(by.key, hashes.SHA256())
    return Minted((pem_of(leaf), *(pem_of(c) for c in by.path)), pem_key(key), pem_of(by.root), leaf)


def write_ca(directory: Path, by: Authority, *, roots: Sequence[x509.Certificate] | None = None, chain: bool = True) -> None:
    """``by`` as a LOCAL_CA_DIR."""
    (directory / "ca-cert.pem").write_bytes(pem_of(by.certificate))
    (directory / "ca-key.pem").write_bytes(pem_key(by.key))
    (directory / "ca-key.pem").chmod(0o600)
    (directory / "root-cert.pem").write_bytes(b"".join(pem_of(root) for root in (roots if roots is not None else [by.root])))
    if chain and by.path:
        (directory / "cert-chain.pem").write_bytes(b"".join(pem_of(c) for c in by.path))
