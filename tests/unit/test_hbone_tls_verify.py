"""Who is let in at either end of a tunnel, and what each side says and is told when the other is not."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL
from OpenSSL._util import lib

from tests.certs import Authority, Minted, mint
from tests.tls_ends import (
    BETWEEN,
    CLIENT,
    CLIENT_CERT,
    OTHER,
    ROOT,
    ROOT_PEM,
    SERVER,
    SERVER_CERT,
    client_end,
    context,
    pair,
    server_end,
    shake,
)
from ztunnel.hbone.errors import TlsError
from ztunnel.hbone.tls_verify import make_context, spiffe_identity
from ztunnel.reasons import CloseReason

R = CloseReason
NOW = datetime.now(UTC)

# --- refusals ---------------------------------------------------------------------------------------------------------

EXPIRED = {"not_before": NOW - timedelta(days=2), "not_after": NOW - timedelta(days=1)}
EARLY = {"not_before": NOW + timedelta(hours=1), "not_after": NOW + timedelta(days=1)}
FOREIGN = "spiffe://evil.local/ns/default/sa/client"

BAD_CLIENTS = {
    "expired": (mint(ROOT, CLIENT, **EXPIRED), R.CERTIFICATE_EXPIRED, "the peer's certificate is expired"),
    "not yet valid": (mint(ROOT, CLIENT, **EARLY), R.CERTIFICATE_EXPIRED, "the peer's certificate is not yet valid"),
    "other root": (mint(OTHER, CLIENT), R.CERTIFICATE_UNTRUSTED, "the peer's certificate: "),
    "other trust domain": (mint(ROOT, FOREIGN), R.IDENTITY_MISMATCH, f"expected trustdomain (cluster.local), got {FOREIGN}"),
    "trust domain that begins alike": (
        mint(ROOT, "spiffe://cluster.local.evil/ns/a/sa/b"),
        R.IDENTITY_MISMATCH,
        "cluster.local.evil",
    ),
    "trust domain in capitals": (mint(ROOT, "spiffe://CLUSTER.LOCAL/ns/a/sa/b"), R.IDENTITY_MISMATCH, "CLUSTER.LOCAL"),
    "no SAN": (mint(ROOT), R.IDENTITY_MISMATCH, "got none"),
    "DNS SAN only": (mint(ROOT, x509.DNSName("cluster.local")), R.IDENTITY_MISMATCH, "got none"),
    "URI that is no SPIFFE id": (mint(ROOT, "https://cluster.local/ns/a/sa/b"), R.IDENTITY_MISMATCH, "https://"),
    "too few segments": (mint(ROOT, "spiffe://cluster.local/ns/a"), R.IDENTITY_MISMATCH, "spiffe://cluster.local/ns/a"),
    "too many segments": (mint(ROOT, CLIENT + "/x"), R.IDENTITY_MISMATCH, "/x"),
    "control characters": (mint(ROOT, "spiffe://x\nlevel=info fake"), R.IDENTITY_MISMATCH, r"spiffe://x\nlevel=info fake"),
    "many SANs": (mint(ROOT, *[f"spiffe://evil/ns/{i}/sa/a" for i in range(200)]), R.IDENTITY_MISMATCH, "..."),
    "only for servers": (
        mint(ROOT, CLIENT, eku=[x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]),
        R.CERTIFICATE_UNTRUSTED,
        "purpose",
    ),
    "signed by a leaf": (
        mint(
            Authority(SERVER_CERT.leaf, serialization.load_pem_private_key(SERVER_CERT.key, None), ROOT.root, (SERVER_CERT.leaf,)),
            CLIENT,
        ),
        R.CERTIFICATE_UNTRUSTED,
        "the peer's certificate: ",
    ),
}


@pytest.mark.parametrize("name", BAD_CLIENTS)
def test_server_refuses_a_client(name: str) -> None:
    cert, reason, words = BAD_CLIENTS[name]
    client, server = pair(cert, client_roots=ROOT_PEM)
    assert server.reason is reason
    assert words in str(server.error)
    assert len(str(server.error)) < 600
    assert not server.tls.established
    assert server.alert, "the client must be told"
    assert client.tls.established, "in TLS 1.3 the client cannot know yet"
    assert client.reason is R.TLS_FAILURE, "and learns it from the alert"
    assert "the peer refused our certificate" in str(client.error)


BAD_SERVERS = {
    "expired": (mint(ROOT, SERVER, **EXPIRED), R.CERTIFICATE_EXPIRED),
    "not yet valid": (mint(ROOT, SERVER, **EARLY), R.CERTIFICATE_EXPIRED),
    "other root": (mint(OTHER, SERVER), R.CERTIFICATE_UNTRUSTED),
    "other identity": (mint(ROOT, CLIENT), R.IDENTITY_MISMATCH),
    "no SAN": (mint(ROOT), R.IDENTITY_MISMATCH),
    "identity in capitals": (mint(ROOT, SERVER.upper()), R.IDENTITY_MISMATCH),
    "identity beyond the 64th SAN": (mint(ROOT, *[f"spiffe://x/ns/{i}/sa/a" for i in range(64)], SERVER), R.IDENTITY_MISMATCH),
    "only for clients": (mint(ROOT, SERVER, eku=[x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]), R.CERTIFICATE_UNTRUSTED),
}


@pytest.mark.parametrize("name", BAD_SERVERS)
def test_client_refuses_a_server(name: str) -> None:
    cert, reason = BAD_SERVERS[name]
    client, server = pair(server=cert, server_roots=ROOT_PEM)
    assert client.reason is reason
    assert client.alert
    assert not client.tls.established
    assert not server.tls.established
    assert server.reason is R.TLS_FAILURE
    assert "the peer refused our certificate" in str(server.error)


def raw(cert: Minted | None = CLIENT_CERT, *, alpn: list[bytes] | None = None) -> SSL.Context:
    """A client that keeps to fewer rules than ours."""
    ctx = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if cert is not None:
        ctx.use_certificate(cert.leaf)
        ctx.use_privatekey(serialization.load_pem_private_key(cert.key, None))
    if alpn:
        ctx.set_alpn_protos(alpn)
    ctx.set_verify(SSL.VERIFY_NONE, lambda *_: True)
    return ctx


def test_a_client_without_a_certificate() -> None:
    client = client_end(raw(None, alpn=[b"h2"]))
    server = server_end()
    shake(client, server)
    assert server.reason is R.CERTIFICATE_UNTRUSTED
    assert str(server.error).endswith("the peer presented no certificate")
    assert server.alert
    assert not server.tls.established


@pytest.mark.parametrize("alpn", [None, [b"http/1.1"]])
def test_alpn_is_required_of_a_client(alpn: list[bytes] | None) -> None:
    client = client_end(raw(alpn=alpn))
    server = server_end()
    shake(client, server)
    assert server.reason is R.TLS_FAILURE
    assert server.alert
    assert not server.tls.established


def test_alpn_is_required_of_a_server() -> None:
    ctx = SSL.Context(SSL.TLS_SERVER_METHOD)
    ctx.use_certificate(SERVER_CERT.leaf)
    ctx.use_privatekey(serialization.load_pem_private_key(SERVER_CERT.key, None))
    client = client_end()
    server = server_end(ctx)
    shake(client, server)
    assert client.reason is R.TLS_FAILURE
    assert "does not speak h2 (ALPN)" in str(client.error)
    assert client.alert
    assert not client.tls.established


@pytest.mark.parametrize("ours_is_server", [True, False])
def test_tls_1_2_is_refused(ours_is_server: bool) -> None:
    old = SSL.Context(SSL.TLS_CLIENT_METHOD if ours_is_server else SSL.TLS_SERVER_METHOD)
    old.set_max_proto_version(SSL.TLS1_2_VERSION)
    cert = CLIENT_CERT if ours_is_server else SERVER_CERT
    old.use_certificate(cert.leaf)
    old.use_privatekey(serialization.load_pem_private_key(cert.key, None))
    client_ctx, server_ctx = (
        (old, context(SERVER_CERT, server=True)) if ours_is_server else (context(CLIENT_CERT, server=False), old)
    )
    client = client_end(client_ctx)
    server = server_end(server_ctx)
    shake(client, server)
    assert client.error is not None
    assert server.error is not None
    ours = server if ours_is_server else client
    assert ours.reason is R.TLS_FAILURE
    assert not ours.tls.established


# --- what is accepted -------------------------------------------------------------------------------------------------


def test_identity_among_other_names() -> None:
    names = [x509.DNSName("server.default.svc"), "https://example.com/", SERVER, "spiffe://other/ns/a/sa/b"]
    client, server = pair(server=mint(ROOT, *names))
    assert client.error is None
    assert server.error is None
    assert client.tls.peer_identity == SERVER


def test_a_chain_with_an_intermediate() -> None:
    client, server = pair(mint(BETWEEN, CLIENT), mint(BETWEEN, SERVER))
    assert client.tls.established
    assert server.tls.established


def test_an_intermediate_that_is_not_sent() -> None:
    bare = mint(BETWEEN, CLIENT)
    bare = Minted(bare.chain[:1], bare.key, bare.roots, bare.leaf)
    _, server = pair(bare)
    assert server.reason is R.CERTIFICATE_UNTRUSTED


def test_an_intermediate_as_root() -> None:
    trusted = BETWEEN.certificate.public_bytes(serialization.Encoding.PEM)
    client, server = pair(mint(BETWEEN, CLIENT), mint(BETWEEN, SERVER), client_roots=trusted, server_roots=trusted)
    assert client.tls.established
    assert server.tls.established
    _, server = pair(CLIENT_CERT, mint(BETWEEN, SERVER), server_roots=trusted)
    assert server.reason is R.CERTIFICATE_UNTRUSTED, "the root above it is not trusted with it"


def test_several_roots() -> None:
    other = mint(OTHER, CLIENT)
    both = other.roots + ROOT_PEM
    client, server = pair(other, SERVER_CERT, client_roots=both, server_roots=both)
    assert client.tls.established
    assert server.tls.established


@pytest.mark.parametrize(
    ("sans", "identity"),
    [
        ([], ""),
        ([CLIENT], CLIENT),
        (["x", CLIENT, SERVER], CLIENT),
        (["spiffe://td/ns//sa/x"], ""),
        (["spiffe:///ns/a/sa/x"], ""),
        (["spiffe://td/ns/a/sa/"], ""),
        (["spiffe://td/ns/a/SA/x"], ""),
        (["spiffe://td/sa/a/ns/x"], ""),
        (["SPIFFE://td/ns/a/sa/x"], ""),
        (["spiffe:/x/td/ns/a/sa/x"], ""),
        (["spiffe://td/ns/a/sa/x/"], ""),
    ],
)
def test_spiffe_identity(sans: list[str], identity: str) -> None:
    assert spiffe_identity(sans) == identity


@pytest.mark.parametrize("what", ["chain", "key", "roots", "other key", "encrypted key", "no chain"])
def test_unusable_material(what: str) -> None:
    chain, key, roots = CLIENT_CERT.chain[0], CLIENT_CERT.key, ROOT_PEM
    if what == "chain":
        chain = chain.replace(b"M", b"N")
    elif what == "no chain":
        chain = b""
    elif what == "key":
        key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    elif what == "roots":
        roots = b"# none\n"
    elif what == "other key":
        key = SERVER_CERT.key
    else:
        loaded = serialization.load_pem_private_key(key, None)
        key = loaded.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
        )
    with pytest.raises(TlsError) as error:
        make_context(chain, key, roots, server=True)
    assert error.value.reason is R.CERTIFICATE_UNAVAILABLE
    assert lib.ERR_peek_error() == 0
