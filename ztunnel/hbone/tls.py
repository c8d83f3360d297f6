"""TLS 1.3 under HBONE, as bytes in and bytes out.

Theory of operation. A :class:`TlsSession` is an OpenSSL connection over two memory BIOs. Ciphertext that the shell received lies
in :class:`Buffers` ``cipher_in``; :meth:`TlsSession.decrypt` leaves plaintext in ``plain_in``; :meth:`TlsSession.encrypt` leaves
ciphertext in ``cipher_out``. The buffers are allocated once for the whole process and belong to whoever calls.

Why ``OpenSSL._util``: pyOpenSSL's public ``Connection.recv_into`` allocates a C buffer and copies for every record, and reports
"no more" by an exception that costs more than the record. ``lib`` and ``ffi`` are what pyOpenSSL itself is written with; they
are used here and in ``tls_verify.py`` only. BIOs are fed and emptied in :data:`STEP` bytes, as a memory BIO keeps the largest
size it ever had.

Identities are verified inside the handshake, so that a server never completes it with a client that is not who it should
be. In TLS 1.3 a client completes before the server has judged *its* certificate: such a refusal is an error of a later
:meth:`TlsSession.decrypt`. After any TlsError, :meth:`TlsSession.pull` has the alert for the peer.

Before OpenSSL 4, errors lie in one queue per thread and one connection's leftovers are taken for the next one's failure: it is
emptied before every call whose result is asked for.
"""

from typing import Any, Final

from OpenSSL import SSL
from OpenSSL._util import ffi, lib

from ztunnel.hbone.errors import TlsError
from ztunnel.hbone.tls_verify import Verifier, accept_trust_domain, expect_identities, make_context, spiffe_identity
from ztunnel.reasons import CloseReason

__all__ = [
    "Buffers",
    "TlsSession",
    "Verifier",
    "accept_trust_domain",
    "expect_identities",
    "make_context",
    "pointer",
    "spiffe_identity",
]

STEP: Final = 32_768
"""Bytes moved into or out of a BIO at a time: larger steps are no faster, and keep more memory for each busy session."""
_RECORD_OVERHEAD: Final = 64
"""More than header, type and tag of a record (RFC 8446 §5.2)."""
_WANT_READ: Final = 2
_ZERO_RETURN: Final = 6

_SSL_read = lib.SSL_read
_SSL_write = lib.SSL_write
_BIO_read = lib.BIO_read
_BIO_write = lib.BIO_write
_SSL_get_error = lib.SSL_get_error
_ERR_clear_error = lib.ERR_clear_error


class Buffers:
    """The process's three TLS buffers. Sizes in bytes; ``plain_in`` holds whatever ``cipher_in`` can decrypt to."""

    def __init__(self, cipher_in: int = 1 << 18, plain_out: int = 1 << 20) -> None:
        self.cipher_in = memoryview(bytearray(cipher_in))
        self.plain_in = memoryview(bytearray(cipher_in + (1 << 15)))  # and a record begun earlier
        self.plain_out = plain_out
        """The most that :meth:`TlsSession.encrypt` takes at once."""
        self.cipher_out = memoryview(bytearray(plain_out + (plain_out >> 14) * _RECORD_OVERHEAD + (1 << 17)))
        self.cipher_in_at = ffi.from_buffer(self.cipher_in)
        self.plain_in_at = ffi.from_buffer(self.plain_in)
        self.cipher_out_at = ffi.from_buffer(self.cipher_out)


def pointer(buffer: bytearray) -> Any:
    """The address of ``buffer`` for :meth:`TlsSession.encrypt`; the buffer must not be resized while it is held."""
    return ffi.from_buffer(buffer)


class TlsSession:
    """One TLS connection. ``peer_identity`` is the peer's SPIFFE id once verified; ``established`` after the handshake."""

    __slots__ = (
        "_ahead",
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
        self._ahead = b""
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

    def shutdown(self) -> int:
        """Say close_notify, once everything was encrypted; returns how many bytes of ``cipher_out`` are to be sent."""
        if self.established:
            _ERR_clear_error()
            lib.SSL_shutdown(self._ssl)
        return self.pull()

    def handshake(self, received: int) -> int:
        """Take ``received`` bytes of ``cipher_in``; returns how many of ``cipher_out`` are to be sent.

        :attr:`established` tells whether it is done; then ``decrypt(0)`` comes next, as data may have followed. Raises TlsError.
        """
        b = self._buffers
        fed = 0
        while True:
            if fed < received:
                step = min(STEP, received - fed)
                _BIO_write(self._rbio, b.cipher_in_at + fed, step)
                fed += step
            try:
                self._connection.do_handshake()
                break
            except SSL.WantReadError:
                if fed >= received:
                    return self.pull()
            except SSL.Error as e:
                raise self._failure(e) from None
        self.established = True
        self._ahead = bytes(b.cipher_in[fed:received])
        return self.pull()

    def pull(self) -> int:
        """Move what OpenSSL wants sent to the start of ``cipher_out``; how many bytes. Also the alert after a failure."""
        n = int(_BIO_read(self._wbio, self._buffers.cipher_out_at, len(self._buffers.cipher_out)))
        return max(n, 0)

    def decrypt(self, received: int) -> int:
        """Take ``received`` bytes of ``cipher_in``; returns how many of ``plain_in`` they decrypt to. Raises TlsError."""
        b = self._buffers
        if self._ahead:
            if received:  # twice a buffer's worth could be more than plain_in holds
                raise TlsError(CloseReason.INTERNAL, "decrypt(0) must follow the handshake")
            received = len(self._ahead)
            b.cipher_in[:received] = self._ahead
            self._ahead = b""
        ssl, rbio, source, target = self._ssl, self._rbio, b.cipher_in_at, b.plain_in_at
        room = len(b.plain_in)
        fill = fed = 0
        _ERR_clear_error()
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
        """Encrypt ``n`` bytes at ``source`` (:func:`pointer`) into ``cipher_out``; the length of that.

        ``n``: at most ``Buffers.plain_out``, else ValueError. Raises TlsError.
        """
        b = self._buffers
        if n > b.plain_out:
            raise ValueError(f"{n} bytes to encrypt at once, at most {b.plain_out}")
        ssl, wbio, target = self._ssl, self._wbio, b.cipher_out_at
        room = len(b.cipher_out)
        done = out = held = 0
        _ERR_clear_error()
        while done < n:
            k = _SSL_write(ssl, source + done, n - done)  # one record: pyOpenSSL's contexts write partially
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
        _ERR_clear_error()
        if self.failure is not None:
            return self.failure
        texts = [str(part[-1]) for part in (error.args[0] if error and error.args and isinstance(error.args[0], list) else [])]
        text = "; ".join(texts) or type(error).__name__
        if "peer did not return a certificate" in text:
            return TlsError(CloseReason.CERTIFICATE_UNTRUSTED, "the peer presented no certificate")
        if "alert" in text and ("certificate" in text or "unknown ca" in text):
            return TlsError(CloseReason.TLS_FAILURE, f"the peer refused our certificate: {text}")
        return TlsError(CloseReason.TLS_FAILURE, text[:300])
