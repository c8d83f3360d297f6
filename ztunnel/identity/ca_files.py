"""The directory of a local CA: read strictly, or made anew.

``ca-cert.pem`` (the signing certificate, perhaps an intermediate, perhaps followed by those above it), ``ca-key.pem``,
``root-cert.pem`` (one root or more), optionally ``cert-chain.pem``: the names of Istio's ``cacerts`` secret. Whatever is
wrong is said with the file, the cause and the remedy, and nothing half right is returned. Called from a thread.
"""

import os
import stat
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from ztunnel.identity.ca_local import CaKey, LocalCa, pem_of
from ztunnel.identity.errors import CaFilesError

__all__ = ["CA_CERT", "CA_KEY", "CERT_CHAIN", "ROOT_CERT", "create_ca", "fingerprint", "load_ca"]

CA_CERT: Final = "ca-cert.pem"
CA_KEY: Final = "ca-key.pem"
ROOT_CERT: Final = "root-cert.pem"
CERT_CHAIN: Final = "cert-chain.pem"
MAX_FILE: Final = 1024 * 1024
"""Bytes of one file: some hundred certificates."""
ROOT_DAYS: Final = 3650
"""Life of a root made here (istiod's self-signed root: 10 years)."""


def load_ca(directory: Path, now: float) -> LocalCa:
    """The CA in ``directory``, usable at ``now`` (Unix seconds). Raises CaFilesError."""
    at = datetime.fromtimestamp(now, UTC)
    signing, *more = _certificates(directory / CA_CERT)
    roots = tuple(dict.fromkeys(_certificates(directory / ROOT_CERT)))
    pool = [*more, *(_certificates(directory / CERT_CHAIN) if (directory / CERT_CHAIN).exists() else ())]
    key = _key(directory / CA_KEY)
    if _public(key.public_key()) != _public(signing.public_key()):
        raise CaFilesError(
            f"{directory / CA_KEY}: the key does not belong to the first certificate of {CA_CERT}; put the matching pair there"
        )
    for root in roots:
        _check_ca(root, directory / ROOT_CERT, at, below=0)
    _check_ca(signing, directory / CA_CERT, at, below=0)
    intermediates = () if signing in roots else _path(directory, signing, pool, roots, at)
    mode = stat.S_IMODE((directory / CA_KEY).stat().st_mode)
    warnings = (
        (f"{directory / CA_KEY}: others can read or write the CA key (mode {mode:04o}); chmod 600 it",) if mode & 0o077 else ()
    )
    return LocalCa(signing, key, intermediates, roots, warnings)


def create_ca(directory: Path, common_name: str, now: float) -> LocalCa:
    """Make a self-signed root for ``common_name`` (say, the trust domain) in ``directory`` and load it.

    Never replaces a key that is there: raises CaFilesError. The certificates are written first and the key last, each atomically,
    so that a run cut short leaves no loadable half.
    """
    if (directory / CA_KEY).exists():
        raise CaFilesError(f"{directory / CA_KEY}: exists already; remove the directory to make a new CA, or use the one there")
    key = ec.generate_private_key(ec.SECP256R1())
    start = datetime.fromtimestamp(now, UTC) - timedelta(minutes=2)
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, common_name[:64])])
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    root = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=ROOT_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(directory / ROOT_CERT, pem_of(root), 0o644)
        _write(directory / CA_CERT, pem_of(root), 0o644)
        _write(directory / CA_KEY, pem, 0o600)
    except OSError as error:
        raise CaFilesError(
            f"{directory}: cannot write the CA's files: {error.strerror}; give a directory that can be written"
        ) from error
    return load_ca(directory, now)


def fingerprint(directory: Path) -> tuple[tuple[int, int, int], ...]:
    """Changes when a file of the CA is replaced or written: (inode, mtime in ns, size) each, zeros for one that is absent."""

    def one(name: str) -> tuple[int, int, int]:
        try:
            found = (directory / name).stat()
        except OSError:
            return (0, 0, 0)
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    return tuple(one(name) for name in (CA_CERT, CA_KEY, ROOT_CERT, CERT_CHAIN))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise CaFilesError(
            f"{path}: cannot be read: {error.strerror}; LOCAL_CA_DIR needs {CA_CERT}, {CA_KEY} and {ROOT_CERT}"
        ) from error
    if len(data) > MAX_FILE:
        raise CaFilesError(f"{path}: longer than {MAX_FILE} bytes; is it the right file?")
    return data


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise CaFilesError(f"{path}: not one or more PEM certificates ({error}); write them as BEGIN CERTIFICATE blocks") from error


def _key(path: Path) -> CaKey:
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError) as error:
        raise CaFilesError(f"{path}: not an unencrypted PEM private key ({error}); convert it with `openssl pkey`") from error
    if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        return key
    raise CaFilesError(f"{path}: a {type(key).__name__}; the CA key must be ECDSA, RSA or Ed25519")


def _public(key: object) -> bytes:
    assert hasattr(key, "public_bytes")
    data = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert isinstance(data, bytes)
    return data


def _check_ca(certificate: x509.Certificate, path: Path, at: datetime, below: int) -> None:
    """``certificate`` may sign, at ``at``, with ``below`` CA certificates between it and the leaf."""
    who = f"{path}: certificate {certificate.subject.rfc4514_string()!r}"
    if certificate.not_valid_after_utc <= at:
        raise CaFilesError(f"{who} expired at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}; renew it")
    if certificate.not_valid_before_utc > at:
        raise CaFilesError(f"{who} is not valid before {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}; check the clock")
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        raise CaFilesError(f"{who} is not a CA (no basic constraints); give the CA's own certificate") from None
    except ValueError as error:
        raise CaFilesError(f"{who} has malformed extensions ({error}); make it anew") from error
    if not constraints.ca:
        raise CaFilesError(f"{who} is not a CA (CA:FALSE); give the CA's own certificate")
    if constraints.path_length is not None and constraints.path_length < below:
        raise CaFilesError(
            f"{who} allows {constraints.path_length} CA certificates below it, but there are {below}; raise its path length"
        )
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not usage.key_cert_sign:
        raise CaFilesError(f"{who} may not sign certificates (key usage without keyCertSign); make it anew with that usage")


def _path(
    directory: Path, signing: x509.Certificate, pool: Iterable[x509.Certificate], roots: tuple[x509.Certificate, ...], at: datetime
) -> tuple[x509.Certificate, ...]:
    """The intermediates from ``signing`` up to, and without, a root."""
    path = [signing]
    left = [c for c in pool if c != signing and c not in roots]
    while True:
        last = path[-1]
        root = next((c for c in roots if _issued(last, c)), None)
        if root is not None:
            _check_ca(root, directory / ROOT_CERT, at, below=len(path))
            return tuple(path)
        above = next((c for c in left if _issued(last, c)), None)
        if above is None:
            raise CaFilesError(
                f"{directory / CA_CERT}: no path from {last.subject.rfc4514_string()!r} to a root of {ROOT_CERT}: "
                f"its issuer {last.issuer.rfc4514_string()!r} is missing; add it to {CERT_CHAIN} or {ROOT_CERT}"
            )
        _check_ca(above, directory / CERT_CHAIN, at, below=len(path))
        left.remove(above)
        path.append(above)


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001 - InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm: all mean "no"
        return False
    return True


def _write(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
