"""The local CA's leaves, and the requests it signs."""

import base64
import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.certs import authority, write_ca
from ztunnel.identity.ca_files import create_ca, load_ca
from ztunnel.identity.csr import check_request, make_request
from ztunnel.identity.errors import IssueError
from ztunnel.identity.spiffe import parse_spiffe

ME = parse_spiffe("spiffe://cluster.local/ns/default/sa/sleep")
NOW = time.time()


def test_leaf_is_what_the_mesh_expects(tmp_path: Path) -> None:
    ca = create_ca(tmp_path, "cluster.local", NOW)
    made = make_request(ME)
    chain = ca.issue(ME, made.request, NOW)
    assert len(chain) == 1
    leaf = x509.load_pem_x509_certificate(chain[0])
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert san.critical
    assert san.value.get_values_for_type(x509.UniformResourceIdentifier) == [str(ME)]
    assert len(list(san.value)) == 1
    assert list(leaf.subject) == []
    assert leaf.not_valid_before_utc == datetime.fromtimestamp(int(NOW - 120), UTC)
    assert leaf.not_valid_after_utc == datetime.fromtimestamp(int(NOW + 86_400), UTC)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_cert_sign, usage.key_encipherment) == (True, False, False)
    assert set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == {
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    }
    aki = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    ski = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert aki.key_identifier == ski.digest
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)


def test_chain_goes_through_intermediates_and_leaves_the_root_out(tmp_path: Path) -> None:
    root = authority("root")
    signer = authority("signer", parent=authority("middle", parent=root))
    write_ca(tmp_path, signer)
    ca = load_ca(tmp_path, NOW)
    chain = [x509.load_pem_x509_certificate(pem) for pem in ca.issue(ME, make_request(ME).request, NOW)]
    assert len(chain) == 3
    for lower, upper in zip(chain, [*chain[1:], root.certificate], strict=True):
        lower.verify_directly_issued_by(upper)
    assert root.certificate not in chain


def test_leaf_never_outlives_its_issuer(tmp_path: Path) -> None:
    end = datetime.fromtimestamp(int(NOW) + 3600, UTC)
    write_ca(tmp_path, authority(not_after=end))
    ca = load_ca(tmp_path, NOW)
    leaf = x509.load_pem_x509_certificate(ca.issue(ME, make_request(ME).request, NOW)[0])
    assert leaf.not_valid_after_utc == end
    with pytest.raises(IssueError, match="expired"):
        ca.issue(ME, make_request(ME).request, NOW + 7200)


def make_public(leaf: x509.Certificate) -> bytes:
    return leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_serials_and_keys_differ_each_time(tmp_path: Path) -> None:
    ca = create_ca(tmp_path, "cluster.local", NOW)
    leaves = [x509.load_pem_x509_certificate(ca.issue(ME, make_request(ME).request, NOW)[0]) for _ in range(3)]
    assert len({leaf.serial_number for leaf in leaves}) == 3
    assert len({make_public(leaf) for leaf in leaves}) == 3


def _request(
    *sans: x509.GeneralName, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None, subject: str = ""
) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)] if subject else [])
    builder = x509.CertificateSigningRequestBuilder(subject_name=name)
    if sans:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=True)
    return builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM)


URI = x509.UniformResourceIdentifier(str(ME))


@pytest.mark.parametrize(
    ("request_pem", "why"),
    [
        (_request(), "names no identity"),
        (_request(x509.UniformResourceIdentifier("spiffe://cluster.local/ns/other/sa/sleep")), "must name exactly"),
        (_request(URI, x509.UniformResourceIdentifier("spiffe://cluster.local/ns/kube-system/sa/admin")), "must name exactly"),
        (_request(x509.DNSName("sleep.default")), "must name exactly"),
        (_request(URI, subject="admin"), "subject is not empty"),
        (_request(URI, key=ec.generate_private_key(ec.SECP384R1())), "not ECDSA P-256"),
        (_request(URI, key=rsa.generate_private_key(65537, 2048)), "not ECDSA P-256"),
        (b"", "well-formed"),
        (b"x" * 20_000, "longer than"),
    ],
)
def test_requests_for_anything_else_are_refused(request_pem: bytes, why: str) -> None:
    with pytest.raises(IssueError, match=why):
        check_request(request_pem, ME)


def test_a_request_whose_signature_was_tampered_with_is_refused() -> None:
    lines = make_request(ME).request.decode().splitlines()
    der = bytearray(base64.b64decode("".join(lines[1:-1])))
    der[-1] ^= 1
    pem = "\n".join([lines[0], base64.b64encode(der).decode(), lines[-1]]).encode()
    with pytest.raises(IssueError, match=r"signature|well-formed"):
        check_request(pem, ME)


GOOD = make_request(ME).request


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=4))
def test_requests_are_parsed_totally(at: int, noise: bytes) -> None:
    mutated = GOOD[:at] + noise + GOOD[at + len(noise) :]
    with contextlib.suppress(IssueError):  # anything else that is raised fails the test
        assert check_request(mutated, ME).curve.name == "secp256r1"
