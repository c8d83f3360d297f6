"""TLS 1.3 under HBONE, as bytes in and bytes out.

Theory of operation. A :class:`TlsSession` is an OpenSSL connection over two memory BIOs. Ciphertext that the shell received lies
in :class:`Buffers` ``cipher_in``; :meth:`TlsSession.decrypt` leaves plaintext in ``plain_in``; :meth:`TlsSession.encrypt` leaves
ciphertext in ``cipher_out``. The buffers are allocated once for the whole process and belong to whoever calls.

Why ``OpenSSL._util``: pyOpenSSL's public ``Connection.recv_into`` allocates a C buffer and copies for every record, and reports
"no more" by an exception that costs more than the record. ``lib`` and ``ffi`` are what pyOpenSSL itself is written with; they are
used in this file only. BIOs are fed and emptied in :data:`STEP` bytes, as a memory BIO keeps the largest size it ever had.

Identities are verified inside the handshake, so that a peer that is not who it should be never sees it complete.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from cryptography import x509
from OpenSSL import SSL, crypto
from OpenSSL._util import ffi, lib

from ztunnel.hbone.errors import TlsError
from ztunnel.reasons import CloseReason

__all__ = ["Buffers", "TlsSession", "accept_trust_domain", "expect_identities", "make_context", "spiffe_identity"]

STEP: Final = 65_536
"""Bytes moved into or out of a BIO at a time."""
_RECORD_OVERHEAD: Final = 64
"""More than header, type and tag of a record (RFC 8446 §5.2)."""
_SUITES: Final = b"TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256"
_WANT_READ: Final = 2
_ZERO_RETURN: Final = 6
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_MAX_SANS: Final = 64

_SSL_read = lib.SSL_read
_SSL_write = lib.SSL_write
_BIO_read = lib.BIO_read
_BIO_write = lib.BIO_write
_SSL_get_error = lib.SSL_get_error

Verifier = Callable[[Sequence[str]], str | None]
"""Takes the URI SANs of the peer's leaf; returns None when it is accepted, else what is wrong."""


class Buffers:
    """The process's three TLS buffers. Sizes in bytes; ``plain_in`` holds whatever ``cipher_in`` can decrypt to."""

    def __init__(self, cipher_in: int = 1 << 18, plain_out: int = 1 << 20) -> None:
        self.cipher_in = memoryview(bytearray(cipher_in))
        self.plain_in = memoryview(bytearray(cipher_in + (1 << 15)))
        self.cipher_out = memoryview(bytearray(plain_out + (plain_out >> 14) * _RECORD_OVERHEAD + (1 << 17)))
        self.cipher_in_at = ffi.from_buffer(self.cipher_in)
        self.plain_in_at = ffi.from_buffer(self.plain_in)
        self.cipher_out_at = ffi.from_buffer(self.cipher_out)


def pointer(buffer: bytearray) -> Any:
    """The address of ``buffer`` for :meth:`TlsSession.encrypt`; the buffer must not be resized while it is held."""
    return ffi.from_buffer(buffer)


def make_context(chain: bytes, key: bytes, roots: bytes, *, server: bool) -> SSL.Context:
    """A context for one identity and role. PEM in. Raises TlsError (CERTIFICATE_UNAVAILABLE) when the material is unusable."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD if server else SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(_SUITES)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # a resumed session would keep the old peer identity
    try:
        leaf, *between = x509.load_pem_x509_certificates(chain)
        context.use_certificate(leaf)
        for certificate in between:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_PEM, key))
        context.check_privatekey()
        store = context.get_cert_store()
        assert store is not None
        for root in x509.load_pem_x509_certificates(roots):
            store.add_cert(crypto.X509.from_cryptography(root))
    except (ValueError, SSL.Error, crypto.Error) as e:
        raise TlsError(CloseReason.CERTIFICATE_UNAVAILABLE, f"unusable certificate: {e}") from None
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _verify)
    if server:
        context.set_alpn_select_callback(_select_h2)
    else:
        context.set_alpn_protos([b"h2"])
    return context


def _select_h2(_: SSL.Connection, offered: list[bytes]) -> Any:
    return b"h2" if b"h2" in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _verify(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
    """OpenSSL's verify callback; called from the root of the chain to the leaf."""
    session: TlsSession = connection.get_app_data()
    try:
        if not ok:
            if error in (_EXPIRED, _NOT_YET_VALID):
                when = "expired" if error == _EXPIRED else "not yet valid"
                session.failure = TlsError(CloseReason.CERTIFICATE_EXPIRED, f"the peer's certificate is {when}")
            else:
                why = ffi.string(lib.X509_verify_cert_error_string(error)).decode()
                session.failure = TlsError(CloseReason.CERTIFICATE_UNTRUSTED, f"the peer's certificate: {why}")
            return False
        if depth == 0:
            sans = _uri_sans(certificate.to_cryptography())
            session.peer_identity = spiffe_identity(sans)
            wrong = session.verifier(sans)
            if wrong is not None:
                session.failure = TlsError(CloseReason.IDENTITY_MISMATCH, wrong)
                return False
        return True
    except Exception as e:  # noqa: BLE001 an exception must not cross OpenSSL, and must not be taken for consent
        session.failure = TlsError(CloseReason.CERTIFICATE_UNTRUSTED, f"the peer's certificate cannot be read: {type(e).__name__}")
        return False


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


def expect_identities(identities: Sequence[str]) -> Verifier:
    """Client side: one of the server's SANs must be one of ``identities``."""
    wanted = frozenset(identities)

    def verify(sans: Sequence[str]) -> str | None:
        if wanted.isdisjoint(sans):
            return f"peer did not present the expected SAN ({', '.join(sorted(wanted))}), got {', '.join(sans) or 'none'}"
        return None

    return verify


def accept_trust_domain(trust_domain: str) -> Verifier:
    """Server side: the client must have a SPIFFE identity in exactly ``trust_domain``."""
    prefix = f"spiffe://{trust_domain}/"

    def verify(sans: Sequence[str]) -> str | None:
        identity = spiffe_identity(sans)
        if not identity.startswith(prefix):
            return f"peer did not present the expected trustdomain ({trust_domain}), got {', '.join(sans) or 'none'}"
        return None

    return verify


class TlsSession:
    """One TLS connection. ``peer_identity`` is the peer's SPIFFE id once verified; ``established`` after the handshake."""

    __slots__ = (
        "_buffers",
        "_connection",
        "_rbio",
        "_ssl",
        "_wbio",
        "ended",
        "established",
        "failure",
        "peer_identity",
        "verifier",
    )

    def __init__(self, context: SSL.Context, buffers: Buffers, verifier: Verifier, *, server: bool) -> None:
        self._buffers = buffers
        self.verifier = verifier
        self.peer_identity = ""
        self.failure: TlsError | None = None
        self.established = False
        self.ended = False
        """The peer sent close_notify."""
        self._connection: Any = SSL.Connection(context, None)
        self._connection.set_app_data(self)
        if server:
            self._connection.set_accept_state()
        else:
            self._connection.set_connect_state()
        self._ssl = self._connection._ssl
        self._rbio = self._connection._into_ssl
        self._wbio = self._connection._from_ssl

    def close(self) -> None:
        """Break the reference cycle with OpenSSL's connection, which otherwise waits for a full collection."""
        self._connection.set_app_data(None)

    def handshake(self, received: int) -> int:
        """Take ``received`` bytes of ``cipher_in``; returns how many of ``cipher_out`` are to be sent.

        :attr:`established` tells whether it is done. Raises TlsError; then :meth:`alert` may still have bytes to send.
        """
        if received:
            _BIO_write(self._rbio, self._buffers.cipher_in_at, received)
        try:
            self._connection.do_handshake()
            self.established = True
        except SSL.WantReadError:
            pass
        except SSL.Error as e:
            raise self._failure(e) from None
        if self.established and self._connection.get_alpn_proto_negotiated() != b"h2":
            raise TlsError(CloseReason.TLS_FAILURE, "the peer does not speak h2 (ALPN)")
        return self.pull()

    def pull(self) -> int:
        """Move what OpenSSL wants sent to the start of ``cipher_out``; how many bytes. Also the alert after a failure."""
        n = int(_BIO_read(self._wbio, self._buffers.cipher_out_at, len(self._buffers.cipher_out)))
        return max(n, 0)

    def decrypt(self, received: int) -> int:
        """Take ``received`` bytes of ``cipher_in``; returns how many of ``plain_in`` they decrypt to. Raises TlsError."""
        b = self._buffers
        ssl, rbio, source, target = self._ssl, self._rbio, b.cipher_in_at, b.plain_in_at
        room = len(b.plain_in)
        fill = fed = 0
        while True:
            if fed < received:
                step = min(STEP, received - fed)
                _BIO_write(rbio, source + fed, step)
                fed += step
            while True:
                k = _SSL_read(ssl, target + fill, room - fill)
                if k <= 0:
                    break
                fill += k
            if fed >= received:
                break
        error = _SSL_get_error(ssl, k)
        if error != _WANT_READ:
            if error == _ZERO_RETURN:
                self.ended = True
            else:
                raise self._failure(None)
        return fill

    def encrypt(self, source: Any, n: int) -> int:
        """Encrypt ``n`` bytes at ``source`` (:func:`pointer`) into ``cipher_out``; the length of that. Raises TlsError."""
        b = self._buffers
        ssl, wbio, target = self._ssl, self._wbio, b.cipher_out_at
        room = len(b.cipher_out)
        done = out = held = 0
        while done < n:
            k = _SSL_write(ssl, source + done, n - done)
            if k <= 0:
                raise self._failure(None)
            done += k
            held += k
            if held >= STEP or done >= n:
                out += _BIO_read(wbio, target + out, room - out)
                held = 0
        return out

    def _failure(self, error: SSL.Error | None) -> TlsError:
        """What went wrong, as precisely as OpenSSL or our own verification can say."""
        if error is None:
            try:
                self._connection._raise_ssl_error(self._ssl, -1)
            except SSL.Error as e:
                error = e
        if self.failure is not None:
            return self.failure
        texts = [str(part[-1]) for part in (error.args[0] if error and error.args and isinstance(error.args[0], list) else [])]
        text = "; ".join(texts) or type(error).__name__
        if "peer did not return a certificate" in text:
            return TlsError(CloseReason.CERTIFICATE_UNTRUSTED, "the peer presented no certificate")
        if "alert" in text and ("certificate" in text or "unknown ca" in text):
            return TlsError(CloseReason.TLS_FAILURE, f"the peer refused our certificate: {text}")
        return TlsError(CloseReason.TLS_FAILURE, text[:300])
