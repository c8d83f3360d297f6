"""The data plane's end of the link, with the test as the control half."""

import os
import socket
from collections.abc import Iterator, Sequence

import pytest

from policy.model import Action, Authorization, Scope
from tests.worlds import CLIENT, SERVER, Mesh, add_pod, certificate, turn, until, without_listeners, world
from ztunnel.dataplane.control_link import MAX_QUEUED, ControlLink
from ztunnel.dataplane.world import World
from ztunnel.link import messages as m
from ztunnel.reasons import CloseReason
from ztunnel.state.model import Service, WorkloadInfo

DENY = Authorization(name="no", namespace="default", scope=Scope.GLOBAL, action=Action.DENY)
INFO = WorkloadInfo("client", "default", "client")


class Control:
    """The control half."""

    def __init__(self, here: World) -> None:
        self.world = here
        ours, self.sock = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.setblocking(False)
        self.link = ControlLink(here, ours)

    def heard(self) -> list[m.UpMessage]:
        out: list[m.UpMessage] = []
        while True:
            try:
                packet = self.sock.recv(m.MAX_PACKET)
            except BlockingIOError:
                return out
            if not packet:
                return out
            out += m.decode_up(packet)

    def say(self, *messages: m.DownMessage, fds: Sequence[int] = ()) -> None:
        socket.send_fds(self.sock, [m.encode(messages)], list(fds))
        turn(self.world)

    def raw(self, packet: bytes) -> None:
        self.sock.send(packet)
        turn(self.world)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    without_listeners(monkeypatch)
    with world() as made:
        yield made


@pytest.fixture
def control(here: World) -> Iterator[Control]:
    made = Control(here)
    yield made
    made.link.close()
    made.sock.close()


def netns() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def test_hello_says_what_is_held(here: World) -> None:
    add_pod(here, CLIENT)
    here.state.generation = 9
    control = Control(here)
    (hello,) = control.heard()
    assert isinstance(hello, m.DataHello)
    assert (hello.version, hello.pid, hello.generation, hello.last) == (m.VERSION, os.getpid(), 9, True)
    assert [p.uid for p in hello.proxies] == ["client"]
    assert hello.identities == (CLIENT.identity,)
    control.sock.close()
    until(lambda: not control.link.alive, here)
    turn(here)


def test_who_waits_for_a_certificate_is_asked_for_again(here: World, control: Control) -> None:
    class Waiter:
        def on_certificate(self) -> None: ...
        def on_no_certificate(self, error: str) -> None: ...

    here.identities.wait("spiffe://a", Waiter())
    control.link.report()
    assert m.NeedCertificate("spiffe://a") in control.heard()
    another = Control(here)
    another.link.report()
    assert m.NeedCertificate("spiffe://a") in another.heard()
    another.link.close()
    another.sock.close()


def test_another_version_ends_the_link(here: World, control: Control) -> None:
    control.say(m.ControlHello(m.VERSION + 1, 5))
    assert not control.link.alive
    assert not control.link.greeted


@pytest.mark.parametrize("packet", [b"\xc1", b"\x91\x91\xa4Nope", b"\x91\x92\xa8DelProxy\xa1\xff", bytes(m.MAX_PACKET + 1)])
def test_what_cannot_be_read_ends_the_link_and_nothing_else(here: World, control: Control, packet: bytes) -> None:
    control.raw(packet)
    assert not control.link.alive
    assert here.faults == 0


def test_the_other_ends_close_ends_the_link(here: World, control: Control) -> None:
    control.sock.close()
    turn(here)
    assert not control.link.alive
    control.link.send([m.ProxyStopped("x")])
    control.link.report()
    control.link.count()


def test_a_full_state_removes_what_it_does_not_mention(here: World, control: Control) -> None:
    old = Service(name="old", namespace="default", hostname="old.example")
    here.state.upsert_workload(CLIENT)
    here.state.upsert_service(old)
    here.policies.upsert(DENY)
    new = Service(name="new", namespace="default", hostname="new.example")
    control.say(m.StateBegin(5, True))
    control.say(m.Services((new,)))
    control.say(m.Workloads((SERVER,)))
    assert here.state.workload(CLIENT.uid) is not None
    control.say(m.StateEnd(5))
    assert [w.uid for w in here.state.workloads()] == [SERVER.uid]
    assert [s.key for s in here.state.services()] == [new.key]
    assert not list(here.policies.policies())
    assert here.state.generation == 5


def test_a_difference_removes_what_it_names(here: World, control: Control) -> None:
    control.say(m.StateBegin(1, True), m.Workloads((CLIENT, SERVER)), m.Policies((DENY,)), m.StateEnd(1))
    control.say(m.StateBegin(2, False), m.Workloads(remove=(CLIENT.uid,)), m.Policies(remove=("default/no",)), m.StateEnd(2))
    assert [w.uid for w in here.state.workloads()] == [SERVER.uid]
    assert not list(here.policies.policies())


def test_a_full_state_that_breaks_off_removes_nothing(here: World, control: Control) -> None:
    here.state.upsert_workload(CLIENT)
    control.say(m.StateBegin(5, True), m.Workloads((SERVER,)))
    control.sock.close()
    turn(here)
    assert {w.uid for w in here.state.workloads()} == {CLIENT.uid, SERVER.uid}
    next_one = Control(here)
    next_one.say(m.StateEnd(6))
    assert {w.uid for w in here.state.workloads()} == {CLIENT.uid, SERVER.uid}
    next_one.link.close()
    next_one.sock.close()


def test_a_pod_comes_with_its_descriptor_and_goes(here: World, control: Control) -> None:
    fd = netns()
    before = len(os.listdir("/proc/self/fd"))
    control.heard()
    control.say(m.AddProxy("uid", INFO), fds=[fd])
    stat = os.fstat(fd)
    assert control.heard() == [m.ProxyStarted("uid", (stat.st_dev, stat.st_ino))]
    assert not os.get_inheritable(here.proxies["uid"].netns.fd)
    control.say(m.DelProxy("uid"))
    assert control.heard() == [m.ProxyStopped("uid")]
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(fd)


@pytest.mark.parametrize("count", [0, 2, 6])
def test_a_pod_without_exactly_one_descriptor_is_refused(here: World, control: Control, count: int) -> None:
    fds = [netns() for _ in range(count)]
    control.heard()
    before = len(os.listdir("/proc/self/fd"))
    control.say(m.AddProxy("uid", INFO), fds=fds)
    if count <= 4:
        assert control.heard() == [m.ProxyFailed("uid", "no network namespace descriptor came with it")]
    else:
        assert not control.link.alive  # the kernel cut them off
    assert not here.proxies
    assert len(os.listdir("/proc/self/fd")) == before - (not control.link.alive)
    for fd in fds:
        os.close(fd)


def test_what_is_no_namespace_is_refused(here: World, control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    control.heard()
    with open("/dev/null", "rb") as wrong:
        control.say(m.AddProxy("uid", INFO), fds=[wrong.fileno()])
    (answer,) = control.heard()
    assert isinstance(answer, m.ProxyFailed)
    assert "cannot enter the network namespace" in answer.error


def test_certificates_reach_who_waits_and_bad_ones_keep_the_old(here: World, control: Control) -> None:
    class Waiter:
        def __init__(self) -> None:
            self.said: list[str] = []

        def on_certificate(self) -> None:
            self.said.append("here")

        def on_no_certificate(self, error: str) -> None:
            self.said.append(error)

    first, second, third = Waiter(), Waiter(), Waiter()
    identity = CLIENT.identity
    here.identities.wait(identity, first)
    control.say(m.CertificateUnavailable(identity, "no CA"))
    here.identities.wait(identity, second)
    control.say(certificate(identity))
    context = here.identities.context(identity, server=True)
    here.identities.wait(identity, third)
    control.say(m.Certificate(identity, b"rubbish", b"rubbish", b"rubbish", 1e12))
    assert (first.said, second.said) == (["no CA"], ["here"])
    assert len(third.said) == 1
    assert "unusable" in third.said[0]
    assert here.identities.context(identity, server=True) is context
    assert here.identities.ready(identity)
    assert control.link.alive


def test_records_counters_and_gauges_go_up(here: World, control: Control) -> None:
    control.heard()
    series = here.registry.series("source", m.Party(), m.Party(), "", "unknown", "passthrough")
    series.opened = 1
    record = m.Record(series.id, "outbound", "a:1", "b:2", "", 0, 0, 0.0, 0.0, str(CloseReason.COMPLETE))
    here.registry.record(record)
    control.link.report()
    assert control.heard() == [series.definition, m.Closed((record,))]
    control.link.count()
    counters, gauges = control.heard()
    assert counters == m.Counters(((series.id, 1, 0, 0),), ())
    assert isinstance(gauges, m.Gauges)


def test_a_control_half_that_does_not_read_holds_up_nothing(here: World, control: Control) -> None:
    for i in range(60_000):
        here.registry.record(m.Record(0, "inbound", "a:1", "b:2", "x" * 500, 0, 0, 0.0, 0.0, str(CloseReason.COMPLETE)))
        if i % 200 == 0:
            control.link.report()
    assert len(control.link._queue) <= MAX_QUEUED + 60
    got = [message for message in control.heard() if isinstance(message, m.Closed)]
    assert got

    def drained() -> bool:
        got.extend(message for message in control.heard() if isinstance(message, m.Closed))
        return not control.link._queue and not here.registry.pending

    while not drained():
        turn(here)
        control.link.report()
    got.extend(message for message in control.heard() if isinstance(message, m.Closed))
    assert sum(len(c.records) + c.dropped for c in got) == 60_000


def test_a_dump_comes_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    without_listeners(monkeypatch)
    with world() as client, world() as server:
        mesh = Mesh(client, server)
        mesh.connect()
        (conn,) = client.conns()
        monkeypatch.setattr(client, "conns", lambda: [conn] * 450)
        control = Control(client)
        control.heard()
        control.say(m.Dump(3))
        parts = [message for message in control.heard() if isinstance(message, m.Connections)]
        while not parts[-1].last:
            control.link.report()
            parts += [message for message in control.heard() if isinstance(message, m.Connections)]
        assert [len(p.connections) for p in parts] == [200, 200, 50]
        assert {p.request for p in parts} == {3}
        view = parts[0].connections[0]
        assert (view.protocol, view.path, view.identity) == ("HBONE", "tunnel", SERVER.identity)
        monkeypatch.undo()
        control.link.close()
        control.sock.close()
        mesh.close()


def test_an_empty_dump_is_answered(control: Control) -> None:
    control.heard()
    control.say(m.Dump(4))
    assert control.heard() == [m.Connections(4, (), True)]


def test_drain_is_passed_on(here: World, control: Control) -> None:
    deadlines: list[float] = []
    here.on_drain = deadlines.append
    control.say(m.Drain(3.5))
    assert deadlines == [3.5]


def test_a_bug_while_applying_ends_the_link(here: World, control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here, "remove_proxy", lambda _: 1 / 0)
    control.say(m.DelProxy("x"))
    assert here.faults == 1
    assert not control.link.alive


def test_a_pod_that_comes_during_the_drain_is_refused(here: World, control: Control) -> None:
    here.drain()
    fd = netns()
    control.heard()
    control.say(m.AddProxy("uid", INFO), fds=[fd])
    (answer,) = control.heard()
    assert isinstance(answer, m.ProxyFailed)
    assert "shutting down" in answer.error
    assert not here.proxies
    os.close(fd)


def test_it_is_known_for_how_long_the_control_half_took_nothing(here: World, control: Control) -> None:
    assert control.link.stalled == 0
    while not control.link._queue:
        here.log("info", "x" * 4000)
        control.link.report()
    here.loop.now += 40
    assert control.link.stalled >= 40
    control.heard()
    turn(here)
    control.heard()
    assert control.link.stalled == 0
