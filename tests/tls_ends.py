"""Two ends of a tunnel's TLS in memory, for tests: each takes ciphertext and keeps plaintext and the error that ended it."""

from OpenSSL import SSL
from OpenSSL._util import lib

from tests.certs import Minted, authority, mint
from ztunnel.hbone.errors import TlsError
from ztunnel.hbone.tls import Buffers, TlsSession, Verifier, accept_trust_domain, expect_identities, make_context, pointer
from ztunnel.reasons import CloseReason

__all__ = [
    "BETWEEN",
    "CLIENT",
    "CLIENT_CERT",
    "OTHER",
    "ROOT",
    "ROOT_PEM",
    "SERVER",
    "SERVER_CERT",
    "TO_CLIENT",
    "TO_SERVER",
    "End",
    "client_end",
    "context",
    "established",
    "pair",
    "server_end",
    "shake",
]

CLIENT = "spiffe://cluster.local/ns/default/sa/client"
SERVER = "spiffe://cluster.local/ns/default/sa/server"
ROOT = authority("root")
OTHER = authority("other root")
BETWEEN = authority("intermediate", parent=ROOT)
CLIENT_CERT = mint(ROOT, CLIENT)
SERVER_CERT = mint(ROOT, SERVER)
ROOT_PEM = CLIENT_CERT.roots
TO_CLIENT, TO_SERVER = Buffers(), Buffers()


def context(cert: Minted, *, server: bool, roots: bytes | None = None) -> SSL.Context:
    return make_context(b"".join(cert.chain), cert.key, cert.roots if roots is None else roots, server=server)


class End:
    """One side: takes ciphertext as it comes, and keeps plaintext and the error that ended it."""

    def __init__(self, ctx: SSL.Context, verifier: Verifier, *, server: bool) -> None:
        self.buffers = TO_SERVER if server else TO_CLIENT
        self.tls = TlsSession(ctx, self.buffers, verifier, server=server)
        self.plain = b""
        self.error: TlsError | None = None
        self.alert = b""

    def take(self, cipher: bytes) -> bytes:
        """Receive ``cipher``; returns what is to be sent."""
        b, tls = self.buffers, self.tls
        b.cipher_in[: len(cipher)] = cipher
        n, sent = len(cipher), 0
        try:
            if not tls.established:
                sent = tls.handshake(n)
                n = 0
            out = bytes(b.cipher_out[:sent])
            if tls.established:
                fill = tls.decrypt(n)
                self.plain += bytes(b.plain_in[:fill])
        except TlsError as e:
            self.error = e
            self.alert = bytes(b.cipher_out[: tls.pull()])
            return self.alert
        return out

    def send(self, plain: bytes) -> bytes:
        n = self.tls.encrypt(pointer(bytearray(plain)), len(plain))
        return bytes(self.buffers.cipher_out[:n])

    @property
    def reason(self) -> CloseReason | None:
        return self.error.reason if self.error else None


def shake(client: End, server: End) -> None:
    """Carry the handshake, or its failure, to its end."""
    to_server = client.take(b"")
    for _ in range(10):
        to_client = server.take(to_server) if to_server and not server.error else b""
        to_server = client.take(to_client) if to_client and not client.error else b""
        if not to_server:
            return
    raise AssertionError("the handshake does not end")


def pair(
    client: Minted = CLIENT_CERT,
    server: Minted = SERVER_CERT,
    *,
    expected: str = SERVER,
    trust_domain: str = "cluster.local",
    client_roots: bytes | None = None,
    server_roots: bytes | None = None,
) -> tuple[End, End]:
    """Both ends after the handshake, however it went."""
    c = End(context(client, server=False, roots=client_roots), expect_identities([expected]), server=False)
    s = End(context(server, server=True, roots=server_roots), accept_trust_domain(trust_domain), server=True)
    shake(c, s)
    assert lib.ERR_peek_error() == 0, "OpenSSL's error queue is not empty: the next connection would fail for it"
    return c, s


def established() -> tuple[End, End]:
    c, s = pair()
    assert c.error is None
    assert s.error is None
    return c, s


def client_end(ctx: SSL.Context | None = None) -> End:
    """A client before its handshake."""
    return End(ctx or context(CLIENT_CERT, server=False), expect_identities([SERVER]), server=False)


def server_end(ctx: SSL.Context | None = None) -> End:
    """A server before its handshake."""
    return End(ctx or context(SERVER_CERT, server=True), accept_trust_domain("cluster.local"), server=True)
