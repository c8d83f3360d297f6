"""The control half as a whole, with the test as its data plane."""

import dataclasses
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.certs import authority, mint, write_ca
from tests.worlds import config
from ztunnel.config import Config
from ztunnel.control import app as module
from ztunnel.control.app import App
from ztunnel.control.issuers import AbsentIssuer
from ztunnel.control.link import LinkEnded
from ztunnel.control.views import config_view
from ztunnel.identity.errors import IssueError
from ztunnel.identity.issued import IssuedCertificate
from ztunnel.link import messages as m
from ztunnel.state.model import WorkloadInfo

STATE = """
workloads:
- {{uid: u/{name}, name: {name}, namespace: default, serviceAccount: {name}, workloadIps: [10.0.0.1], node: node, protocol: HBONE}}
"""
IDENTITY = "spiffe://cluster.local/ns/default/sa/a"
HELLO = m.DataHello(m.VERSION, 1, 41, (), ())


def write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


class Plane:
    """The data plane's end."""

    def __init__(self) -> None:
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.setblocking(False)
        self.fd = theirs.detach()
        self.heard: list[m.DownMessage] = []

    def say(self, *messages: m.UpMessage) -> None:
        self.sock.send(m.encode(messages))

    def listen(self) -> None:
        while True:
            try:
                packet = self.sock.recv(m.MAX_PACKET)
            except BlockingIOError:
                return
            if not packet:
                return
            self.heard += m.decode_down(packet)

    async def until(self, condition: Callable[[], object]) -> None:
        with trio.fail_after(10):
            while self.listen() or not condition():  # noqa: ASYNC110 a plain socket sets no event
                await trio.sleep(0.005)

    def of(self, kind: type) -> list[m.DownMessage]:
        return [message for message in self.heard if isinstance(message, kind)]


@asynccontextmanager
async def running(monkeypatch: pytest.MonkeyPatch, settings: Config) -> AsyncIterator[tuple[App, Plane]]:
    """An app without ports or log set-up, until its link ends."""
    plane = Plane()
    monkeypatch.setattr(module, "bind", lambda *_, **__: [])
    monkeypatch.setattr(module.logs, "setup", lambda _: None)

    async def serve(*_: object, **__: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(module, "serve", serve)
    app = App(settings, plane.fd)
    ended = trio.Event()

    async def run() -> None:
        try:
            await app.run()
        except* LinkEnded:
            pass
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield app, plane
        plane.sock.close()
        with trio.fail_after(5):
            await ended.wait()
    app._link._sock.close()


def settings(tmp_path: Path, **values: object) -> Config:
    ca = tmp_path / "ca"
    ca.mkdir()
    write_ca(ca, authority())
    defaults = {"local_xds_path": str(tmp_path / "state.yaml"), "local_ca_dir": str(ca), "inpod_uds": str(tmp_path / "zds")}
    return config(**{**defaults, **values})


async def test_state_is_sent_whole_once_and_then_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "state.yaml", STATE.format(name="a"))
    async with running(monkeypatch, settings(tmp_path)) as (_, plane):
        plane.say(HELLO)
        await plane.until(lambda: plane.of(m.StateEnd))
        assert isinstance(plane.heard[0], m.ControlHello)
        assert plane.of(m.StateBegin) == [m.StateBegin(42, True)]
        write(tmp_path / "state.yaml", STATE.format(name="b"))
        await plane.until(lambda: len(plane.of(m.StateEnd)) == 2)
        assert plane.of(m.StateBegin)[1] == m.StateBegin(43, False)
        workloads = [message for message in plane.heard if isinstance(message, m.Workloads)]
        assert [w.remove for w in workloads] == [(), (), ("u/a",)]
        write(tmp_path / "state.yaml", "workloads: 5")
        await trio.sleep(0.3)
        plane.listen()
        assert len(plane.of(m.StateEnd)) == 2


async def test_certificates_are_sent_before_and_when_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "state.yaml", STATE.format(name="a"))
    async with running(monkeypatch, settings(tmp_path)) as (_, plane):
        plane.say(HELLO)
        await plane.until(lambda: plane.of(m.Certificate))
        (first,) = plane.of(m.Certificate)
        assert isinstance(first, m.Certificate)
        assert first.identity == IDENTITY
        plane.say(m.NeedCertificate(IDENTITY))
        await plane.until(lambda: len(plane.of(m.Certificate)) == 2)
        assert plane.of(m.Certificate)[1] == first


async def test_without_a_ca_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, settings(tmp_path, local_ca_dir="", local_xds_path="")) as (_, plane):
        plane.say(HELLO, m.NeedCertificate(IDENTITY))
        await plane.until(lambda: plane.of(m.CertificateUnavailable))
        (answer,) = plane.of(m.CertificateUnavailable)
        assert isinstance(answer, m.CertificateUnavailable)
        assert "LOCAL_CA_DIR" in answer.error


async def test_a_certificate_too_long_for_the_link_is_refused_and_the_link_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(monkeypatch, settings(tmp_path)) as (app, plane):
        plane.say(HELLO)
        minted = mint(authority(), IDENTITY)
        app._on_certificate(IssuedCertificate(IDENTITY, minted.chain, minted.key, minted.roots * 300, 0.0, 1e12))
        await plane.until(lambda: plane.of(m.CertificateUnavailable))
        (answer,) = plane.of(m.CertificateUnavailable)
        assert isinstance(answer, m.CertificateUnavailable)
        assert "fewer roots" in answer.error


@pytest.mark.parametrize("hello", [None, m.Drained()], ids=["version", "kind"])
async def test_a_data_plane_of_another_version_ends_it(hello: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(module.log, "error", lambda text, **_: said.append(text))
    async with running(monkeypatch, settings(tmp_path)) as (_, plane):
        plane.say(hello if isinstance(hello, m.Drained) else m.DataHello(m.VERSION + 1, 1, 0, (), ()))
        await plane.until(lambda: said)
    assert "another link version" in said[0]
    assert not plane.of(m.StateBegin)


async def test_what_the_data_plane_holds_is_adopted_over_several_hellos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = WorkloadInfo("a", "default", "a")
    async with running(monkeypatch, settings(tmp_path, local_xds_path="")) as (app, plane):
        plane.say(m.DataHello(m.VERSION, 1, 7, (m.HeldProxy("x", info, (1, 2)),), (), last=False))
        plane.say(m.DataHello(m.VERSION, 1, 7, (m.HeldProxy("y", info, (1, 3)),), ()))
        await plane.until(lambda: plane.of(m.StateEnd))
        assert app._pods.held() == {"x": (1, 2), "y": (1, 3)}


async def test_a_dump_has_the_connections_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "state.yaml", STATE.format(name="a"))
    secret = settings(tmp_path, auth_token="hunter2", ca_headers=(("authorization", "hunter2"),), xds_headers=(("x", "hunter2"),))
    async with running(monkeypatch, secret) as (app, plane):
        plane.say(HELLO)
        await plane.until(lambda: plane.of(m.Certificate))
        view = m.ConnectionView("u", "inbound", "a:1", "b:2", "b:2", "TCP", "passthrough", "", 1.0, 2, 3)
        parts: list[object] = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                parts.append(await app.dump_parts())

            await plane.until(lambda: plane.of(m.Dump))
            (ask,) = plane.of(m.Dump)
            assert isinstance(ask, m.Dump)
            plane.say(m.Connections(ask.request + 1, (view,), True))
            plane.say(m.Connections(ask.request, (view,), False))
            plane.say(m.Connections(ask.request, (view, view), True))
        text = repr(parts)
        assert text.count("passthrough") == 3
        assert "hunter2" not in text
        (sent,) = plane.of(m.Certificate)
        assert isinstance(sent, m.Certificate)
        assert "PRIVATE KEY" not in text
        assert sent.key.decode() not in text
        assert not app._requests


async def test_quit_drains_and_answers_when_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(monkeypatch, settings(tmp_path, termination_deadline=3.0)) as (app, plane):
        plane.say(HELLO)
        done = trio.Event()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                await app._quit()
                done.set()

            await plane.until(lambda: plane.of(m.Drain))
            assert plane.of(m.Drain) == [m.Drain(3.0)]
            assert not done.is_set()
            plane.say(m.Drained())
        assert done.is_set()


def test_config_view_is_json_without_secrets() -> None:
    view = config_view(config(auth_token="hunter2", xds_headers=(("a", "hunter2"),), ca_headers=(("a", "hunter2"),)))
    assert "hunter2" not in json.dumps(view)
    assert view["nodeName"] == "node"
    suspicious = {
        f.name for f in dataclasses.fields(Config) if any(word in f.name for word in ("token", "secret", "header", "password"))
    }
    assert suspicious == {"auth_token", "xds_headers", "ca_headers", "secret_ttl"}, "a new field: is it shown by config_dump?"


async def test_the_absent_issuer_names_the_remedy() -> None:
    with pytest.raises(IssueError, match="set LOCAL_CA_DIR"):
        await AbsentIssuer().issue(IDENTITY)
    with trio.move_on_after(0) as scope:
        await AbsentIssuer().changed()
    assert scope.cancelled_caught
