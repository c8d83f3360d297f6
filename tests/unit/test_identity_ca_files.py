"""A CA directory is loaded strictly; each refusal names file, cause and remedy."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.certs import authority, pem_key, write_ca
from ztunnel.identity.ca_files import create_ca, fingerprint, load_ca
from ztunnel.identity.ca_local import pem_of
from ztunnel.identity.errors import CaFilesError

NOW = time.time()
TODAY = datetime.fromtimestamp(NOW, UTC)


def test_create_makes_private_files_and_never_replaces(tmp_path: Path) -> None:
    directory = tmp_path / "ca"
    made = create_ca(directory, "cluster.local", NOW)
    assert made.intermediates == ()
    assert made.warnings == ()
    assert {p.name: p.stat().st_mode & 0o777 for p in directory.iterdir()} == {
        "ca-cert.pem": 0o644,
        "ca-key.pem": 0o600,
        "root-cert.pem": 0o644,
    }
    assert "key=" not in repr(made)
    with pytest.raises(CaFilesError, match=r"ca-key\.pem: exists already"):
        create_ca(directory, "cluster.local", NOW)
    assert load_ca(directory, NOW).certificate == made.certificate


def test_several_roots_and_an_intermediate(tmp_path: Path) -> None:
    old, new = authority("old root"), authority("new root")
    signer = authority("signer", parent=new)
    write_ca(tmp_path, signer, roots=[old.certificate, new.certificate], chain=False)
    ca = load_ca(tmp_path, NOW)
    assert ca.intermediates == (signer.certificate,)
    assert ca.roots_pem == pem_of(old.certificate) + pem_of(new.certificate)


def test_readable_key_is_a_warning(tmp_path: Path) -> None:
    write_ca(tmp_path, authority())
    (tmp_path / "ca-key.pem").chmod(0o644)
    assert "chmod 600" in load_ca(tmp_path, NOW).warnings[0]


def _missing(d: Path) -> None:
    write_ca(d, authority())
    (d / "root-cert.pem").unlink()


def _garbage(d: Path) -> None:
    write_ca(d, authority())
    (d / "ca-cert.pem").write_bytes(b"\x00hello")


def _huge(d: Path) -> None:
    write_ca(d, authority())
    (d / "root-cert.pem").write_bytes(b"x" * (1024 * 1024 + 1))


def _wrong_key(d: Path) -> None:
    write_ca(d, authority())
    (d / "ca-key.pem").write_bytes(pem_key(authority().key))


def _bad_key(d: Path) -> None:
    write_ca(d, authority())
    (d / "ca-key.pem").write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")


def _not_a_ca(d: Path) -> None:
    write_ca(d, authority(ca=False))


def _no_cert_sign(d: Path) -> None:
    write_ca(d, authority(cert_sign=False))


def _expired(d: Path) -> None:
    write_ca(d, authority(not_before=TODAY - timedelta(days=9), not_after=TODAY - timedelta(days=1)))


def _future(d: Path) -> None:
    write_ca(d, authority(not_before=TODAY + timedelta(days=1)))


def _no_path(d: Path) -> None:
    write_ca(d, authority("signer", parent=authority("lost")), roots=[authority("another").certificate])


def _path_too_long(d: Path) -> None:
    write_ca(d, authority("signer", parent=authority("root", path_length=0)))


def _loop(d: Path) -> None:
    a = authority("same")
    write_ca(d, authority("same", parent=a), roots=[authority("other").certificate], chain=False)


@pytest.mark.parametrize(
    ("make", "file", "cause"),
    [
        (_missing, "root-cert.pem", "cannot be read"),
        (_garbage, "ca-cert.pem", "PEM certificates"),
        (_huge, "root-cert.pem", "longer than"),
        (_wrong_key, "ca-key.pem", "does not belong"),
        (_bad_key, "ca-key.pem", "not an unencrypted PEM private key"),
        (_not_a_ca, "root-cert.pem", "not a CA"),
        (_no_cert_sign, "root-cert.pem", "keyCertSign"),
        (_expired, "root-cert.pem", "expired at"),
        (_future, "root-cert.pem", "not valid before"),
        (_no_path, "ca-cert.pem", "no path"),
        (_path_too_long, "root-cert.pem", "path length"),
        (_loop, "ca-cert.pem", "no path"),
    ],
)
def test_refusals(tmp_path: Path, make: Callable[[Path], None], file: str, cause: str) -> None:
    make(tmp_path)
    with pytest.raises(CaFilesError) as caught:
        load_ca(tmp_path, NOW)
    assert file in str(caught.value)
    assert cause in str(caught.value)
    assert caught.value.reason == "ca_files_unusable"


def test_fingerprint_sees_a_replaced_file(tmp_path: Path) -> None:
    write_ca(tmp_path, authority())
    before = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == before
    other = tmp_path / "new"
    other.write_bytes((tmp_path / "root-cert.pem").read_bytes())
    other.replace(tmp_path / "root-cert.pem")
    assert fingerprint(tmp_path) != before
