"""The manager with a scripted issuer and with a real local CA, on a virtual clock."""

import base64
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing
from cryptography import x509

from tests.certs import authority, mint, write_ca
from ztunnel.identity.ca_local import pem_of
from ztunnel.identity.errors import CaFilesError, IssueError
from ztunnel.identity.issued import IssuedCertificate, Issuer
from ztunnel.identity.issuer_local import LocalCaIssuer
from ztunnel.identity.manager import CertificateManager
from ztunnel.identity.priority import Priority

A = "spiffe://cluster.local/ns/default/sa/a"
WALL = time.time()
ROOT = authority()


def wall() -> float:
    return WALL + trio.current_time()


class Scripted:
    """Answers each fetch with the next of ``answers``: an exception is raised, "hang" hangs, anything else is a life in seconds."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked: list[float] = []
        self.rotated = trio.Event()

    async def issue(self, identity: str) -> IssuedCertificate:
        self.asked.append(wall() - WALL)
        answer = self.answers.pop(0)
        await trio.lowlevel.checkpoint()
        if answer == "hang":
            await trio.sleep_forever()
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, int)
        minted = mint(ROOT, identity)
        return IssuedCertificate(identity, minted.chain, minted.key, minted.roots, wall(), wall() + answer)

    async def changed(self) -> None:
        await self.rotated.wait()
        self.rotated = trio.Event()


class Seen:
    def __init__(self) -> None:
        self.ready: list[tuple[float, IssuedCertificate]] = []
        self.lost: list[tuple[float, str]] = []


@asynccontextmanager
async def running(issuer: Issuer, clock: Callable[[], float] = wall) -> AsyncIterator[tuple[CertificateManager, Seen]]:
    seen = Seen()
    manager = CertificateManager(
        issuer,
        lambda c: seen.ready.append((wall() - WALL, c)),
        lambda identity, error: seen.lost.append((wall() - WALL, error)),
        clock,
        lambda: 0.5,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manager.run)
        yield manager, seen
        nursery.cancel_scope.cancel()


async def test_fetch_renew_fail_keep_expire_recover(autojump_clock: trio.testing.MockClock) -> None:
    issuer = Scripted(100, IssueError("CA is away"), IssueError("CA is away"), *[IssueError("still")] * 5, 100, 100)
    async with running(issuer) as (manager, seen):
        manager.request(A)
        await trio.sleep(49)
        assert [at for at, _ in seen.ready] == [0]
        await trio.sleep(200)
    assert issuer.asked[:4] == pytest.approx([0, 50, 51, 53], abs=0.1)
    assert any("expired" in error for _, error in seen.lost)
    assert min(at for at, _ in seen.lost) >= 100 - 0.1
    assert len(seen.ready) >= 2


async def test_hanging_and_crashing_issuers_become_errors(autojump_clock: trio.testing.MockClock) -> None:
    issuer = Scripted("hang", ValueError("bug"), 1000)
    async with running(issuer) as (manager, seen):
        manager.request(A)
        await trio.sleep(30)
        assert "within 10 s" in seen.lost[0][1]
        assert "internal error" in seen.lost[1][1]
        assert len(seen.ready) == 1
        (entry,) = manager.dump()
        assert entry["state"] == "Available"


async def test_rotation_reissues(autojump_clock: trio.testing.MockClock) -> None:
    issuer = Scripted(1000, 1000)
    async with running(issuer) as (manager, seen):
        manager.request(A, Priority.WARMUP)
        await trio.sleep(1)
        issuer.rotated.set()
        await trio.sleep(11)
        assert len(seen.ready) == 2


async def test_dump_shape(autojump_clock: trio.testing.MockClock) -> None:
    async with running(Scripted(1000)) as (manager, seen):
        manager.request(A)
        assert manager.dump() == [{"identity": A, "state": "Initializing", "certChain": [], "rootCerts": []}]
        await trio.sleep(1)
        (entry,) = manager.dump()
        leaf = x509.load_pem_x509_certificate(base64.b64decode(entry["certChain"][0]["pem"]))
        assert entry["certChain"][0]["serialNumber"] == str(leaf.serial_number)
        assert entry["certChain"][0]["validFrom"] == leaf.not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
        assert len(entry["rootCerts"]) == 1
        assert seen.ready[0][1].key not in repr(entry).encode()
        manager.forget(A)
        assert manager.dump() == []


async def test_local_ca_issues_reloads_and_keeps_a_good_ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ztunnel.identity.issuer_local.POLL", 0.01)
    write_ca(tmp_path, ROOT)
    issuer = LocalCaIssuer(tmp_path, time.time)
    first = await issuer.issue(A)
    assert first.roots == pem_of(ROOT.certificate)
    assert first.not_after - first.not_before == 86_400 + 120
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            changed = trio.Event()

            async def follow() -> None:
                await issuer.changed()
                changed.set()

            nursery.start_soon(follow)
            (tmp_path / "ca-cert.pem").write_bytes(b"rubbish")
            with trio.fail_after(5):
                while not logs:  # noqa: ASYNC110 - the log has no event to wait for
                    await trio.sleep(0.01)
            assert "ca-cert.pem" in logs[0]["error"]
            assert not changed.is_set()
            assert (await issuer.issue(A)).roots == first.roots
            other = authority("new root")
            write_ca(tmp_path, other)
            with trio.fail_after(5):
                await changed.wait()
    assert (await issuer.issue(A)).roots == pem_of(other.certificate)


def test_an_unusable_directory_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(CaFilesError):
        LocalCaIssuer(tmp_path, time.time)
