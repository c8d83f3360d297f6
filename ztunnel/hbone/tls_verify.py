"""Who may be at the other end of a tunnel: TLS contexts, and the verification of certificates and SPIFFE identities.

Called by whoever holds the certificates (:func:`make_context`) and by OpenSSL in the middle of a handshake. What is wrong with
the peer is kept in ``TlsSession.failure``, as OpenSSL's own error would only say that something was.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL, crypto
from OpenSSL._util import ffi, lib

from ztunnel.hbone.errors import TlsError
from ztunnel.reasons import CloseReason

if TYPE_CHECKING:
    from ztunnel.hbone.tls import TlsSession

__all__ = ["Verifier", "accept_trust_domain", "expect_identities", "make_context", "spiffe_identity"]

_SUITES: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"
"""ztunnel's two suites, AES-128 first: it takes a quarter less time for each byte. A peer that prefers the other gets it."""
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_MAX_SANS: Final = 64
_MAX_SHOWN: Final = 300
"""Characters of the peer's names that go into an error."""
_REJECTED: Final = 28
"""X509_V_ERR_CERT_REJECTED: the peer gets the alert bad_certificate."""

Verifier = Callable[[Sequence[str]], str | None]
"""Takes the URI SANs of the peer's leaf; returns None when it is accepted, else what is wrong."""


def make_context(chain: bytes, key: bytes, roots: bytes, *, server: bool) -> SSL.Context:
    """A context for one identity and role. PEM in, ``chain`` leaf first. Raises TlsError (CERTIFICATE_UNAVAILABLE) when unusable.

    Each of ``roots`` is trusted as it is, be it self-signed or an intermediate, as the webpki verifiers of other mesh proxies do.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD if server else SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(_SUITES)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_mode(lib.SSL_MODE_RELEASE_BUFFERS)  # 30 KiB less for an idle session
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # a resumed session would keep the old peer identity
    try:
        leaf, *between = x509.load_pem_x509_certificates(chain)
        context.use_certificate(leaf)
        for certificate in between:
            context.add_extra_chain_cert(certificate)
        # Not crypto.load_privatekey, which asks the terminal for the password of an encrypted key.
        context.use_privatekey(serialization.load_pem_private_key(key, None))  # type: ignore[arg-type]
        context.check_privatekey()
        store = context.get_cert_store()
        assert store is not None
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        for root in x509.load_pem_x509_certificates(roots):
            store.add_cert(crypto.X509.from_cryptography(root))
    except (ValueError, TypeError, UnsupportedAlgorithm, SSL.Error, crypto.Error) as e:
        raise TlsError(CloseReason.CERTIFICATE_UNAVAILABLE, f"unusable certificate: {e}") from None
    lib.SSL_CTX_set_verify(context._context, SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _verify)
    if server:
        context.set_alpn_select_callback(_select_h2)
    else:
        context.set_alpn_protos([b"h2"])
    return context


def _select_h2(_: SSL.Connection, offered: list[bytes]) -> Any:
    return b"h2" if b"h2" in offered else SSL.NO_OVERLAPPING_PROTOCOLS


@ffi.callback("int (*)(int, X509_STORE_CTX *)", error=0)  # type: ignore[untyped-decorator]
def _verify(ok: int, store: Any) -> int:
    """OpenSSL's verify callback; called from the root of the chain to the leaf.

    Ours and not pyOpenSSL's, which cannot say why: the peer would be told "internal error" instead of "bad certificate".
    """
    ssl = lib.X509_STORE_CTX_get_ex_data(store, lib.SSL_get_ex_data_X509_STORE_CTX_idx())
    connection = SSL.Connection._reverse_mapping[ssl]
    session: TlsSession = connection.get_app_data()
    try:
        session.failure = _judge(session, connection, store, ok)
    except Exception as e:  # noqa: BLE001 an exception must not cross OpenSSL, and must not be taken for consent
        session.failure = TlsError(CloseReason.CERTIFICATE_UNTRUSTED, f"the peer's certificate cannot be read: {type(e).__name__}")
    if session.failure is None:
        return 1
    if ok:
        lib.X509_STORE_CTX_set_error(store, _REJECTED)
    return 0


def _judge(session: "TlsSession", connection: SSL.Connection, store: Any, ok: int) -> TlsError | None:
    """What is wrong with one certificate of the chain."""
    if not ok:
        error = lib.X509_STORE_CTX_get_error(store)
        if error in (_EXPIRED, _NOT_YET_VALID):
            when = "expired" if error == _EXPIRED else "not yet valid"
            return TlsError(CloseReason.CERTIFICATE_EXPIRED, f"the peer's certificate is {when}")
        why = ffi.string(lib.X509_verify_cert_error_string(error)).decode()
        return TlsError(CloseReason.CERTIFICATE_UNTRUSTED, f"the peer's certificate: {why}")
    if lib.X509_STORE_CTX_get_error_depth(store):
        return None
    if connection.get_alpn_proto_negotiated() != b"h2":  # decided before certificates, on both sides
        return TlsError(CloseReason.TLS_FAILURE, "the peer does not speak h2 (ALPN)")
    leaf = lib.X509_STORE_CTX_get_current_cert(store)
    lib.X509_up_ref(leaf)
    sans = _uri_sans(crypto.X509._from_raw_x509_ptr(leaf).to_cryptography())
    session.peer_identity = spiffe_identity(sans)
    wrong = session.verifier(sans)
    return None if wrong is None else TlsError(CloseReason.IDENTITY_MISMATCH, wrong)


def _uri_sans(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)[:_MAX_SANS]


def spiffe_identity(sans: Sequence[str]) -> str:
    """The first SAN of the exact form ``spiffe://<td>/ns/<ns>/sa/<sa>``, or ""."""
    for san in sans:
        parts = san.split("/")
        if (
            len(parts) == 7
            and parts[0] == "spiffe:"
            and not parts[1]
            and parts[3] == "ns"
            and parts[5] == "sa"
            and all(parts[2::2])
        ):
            return san
    return ""


def _shown(sans: Sequence[str]) -> str:
    """Names that the peer chose, for our log: bounded, and no control characters."""
    text = ", ".join(san if san.isprintable() else ascii(san) for san in sans) or "none"
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


def expect_identities(identities: Sequence[str]) -> Verifier:
    """Client side: one of the server's SANs must be one of ``identities``."""
    wanted = frozenset(identities)

    def verify(sans: Sequence[str]) -> str | None:
        if wanted.isdisjoint(sans):
            return f"peer did not present the expected SAN ({', '.join(sorted(wanted))}), got {_shown(sans)}"
        return None

    return verify


def accept_trust_domain(trust_domain: str) -> Verifier:
    """Server side: the client must have a SPIFFE identity in exactly ``trust_domain``."""
    prefix = f"spiffe://{trust_domain}/"

    def verify(sans: Sequence[str]) -> str | None:
        identity = spiffe_identity(sans)
        if not identity.startswith(prefix):
            return f"peer did not present the expected trustdomain ({trust_domain}), got {_shown(sans)}"
        return None

    return verify
