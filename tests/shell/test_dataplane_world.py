"""What connections share: timeouts, faults, pods, descriptors in reserve."""

import os
import socket
from collections.abc import Iterator

import pytest

from tests.worlds import (
    CLIENT,
    SERVER,
    Mesh,
    add_pod,
    certificate,
    listener,
    records,
    said,
    tcp_pair,
    turn,
    until,
    without_listeners,
    world,
)
from ztunnel.dataplane import world as module
from ztunnel.dataplane.errors import DataPlaneError, NetnsError
from ztunnel.dataplane.gauges import gauges
from ztunnel.dataplane.inbound import InboundConn
from ztunnel.dataplane.listeners import _Acceptor
from ztunnel.dataplane.netns import Netns
from ztunnel.dataplane.recheck import SLICE
from ztunnel.dataplane.world import MAX_TEXT, World
from ztunnel.link.messages import Log, NeedCertificate
from ztunnel.reasons import CloseReason
from ztunnel.state.model import WorkloadInfo


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    without_listeners(monkeypatch)
    with world() as made:
        yield made


class Waiter:
    def __init__(self, *, faulty: bool = False) -> None:
        self.timeouts = self.ticks = self.failures = 0
        self.faulty = faulty

    def on_timeout(self) -> None:
        self.timeouts += 1
        if self.faulty:
            raise ValueError("a bug")

    def tick(self, _: float) -> None:
        self.ticks += 1
        if self.faulty:
            raise ValueError("a bug")

    def fail(self, _: Exception) -> None:
        self.failures += 1

    def close(self) -> None:
        pass


def later(here: World, seconds: float) -> None:
    here.loop.now += seconds
    here._tick()


def test_what_is_expected_times_out_once(here: World) -> None:
    soon, late, met = Waiter(), Waiter(), Waiter()
    here.expect(soon, 5.0)
    here.expect(late, 10.0)
    here.expect(met, 5.0)
    assert here.unexpect(met)
    assert not here.unexpect(met)
    later(here, 4.9)
    assert soon.timeouts == 0
    later(here, 0.2)
    later(here, 0.2)
    assert (soon.timeouts, late.timeouts, met.timeouts) == (1, 0, 0)
    assert not here.unexpect(soon)
    assert here.unexpect(late)
    assert not here._where


def test_expecting_again_moves_the_deadline(here: World) -> None:
    waiter = Waiter()
    here.expect(waiter, 5.0)
    later(here, 4.0)
    here.expect(waiter, 5.0)
    later(here, 4.0)
    assert waiter.timeouts == 0
    later(here, 1.1)
    assert waiter.timeouts == 1


def test_who_times_out_may_expect_something_else(here: World) -> None:
    waiter, other = Waiter(), Waiter()
    waiter.on_timeout = lambda: here.expect(other, 7.0)  # type: ignore[method-assign]
    here.expect(waiter, 5.0)
    later(here, 6.0)
    later(here, 8.0)
    assert here.faults == 0
    assert other.timeouts == 1


def test_a_fault_in_one_timeout_does_not_keep_the_others_waiting(here: World) -> None:
    bad, good = Waiter(faulty=True), Waiter()
    here.expect(bad, 5.0)
    here.expect(good, 5.0)
    here.tunnels[bad] = None  # type: ignore[index]
    here.tunnels[good] = None  # type: ignore[index]
    later(here, 6.0)
    assert (good.timeouts, good.ticks) == (1, 1)
    assert bad.failures == 2
    assert here.faults == 2


def test_faults_are_logged_with_their_trace_a_hundred_times(here: World) -> None:
    for _ in range(module._FAULTS + 20):
        here.fault(Waiter(), ValueError("x" * 100_000))
    logs = [line for line in said(here) if isinstance(line, Log)]
    assert len(logs) == module._FAULTS
    assert here.faults == module._FAULTS + 20
    assert all(len(line.message) <= MAX_TEXT and len(line.fields["trace"]) <= MAX_TEXT for line in logs)


def test_long_texts_are_cut(here: World) -> None:
    here.log("info", "m" * 1_000_000, field="f" * 1_000_000)
    (line,) = said(here)
    assert isinstance(line, Log)
    assert len(line.message) == len(line.fields["field"]) == MAX_TEXT


def test_messages_wait_within_bounds(here: World) -> None:
    for _ in range(10_100):
        here.log("info", "x")
    assert len(said(here)) == 10_000
    assert said(here) == []


def test_the_same_pod_twice_is_one(here: World) -> None:
    pod = add_pod(here, CLIENT)
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    assert here.add_proxy("client", pod.info, fd) is pod
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    assert here.held()[0].uid == "client"


def test_a_pod_with_another_identity_replaces_the_old_one(here: World) -> None:
    old = add_pod(here, CLIENT)
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    new = here.add_proxy("client", WorkloadInfo("client", "default", "other"), fd)
    assert new is not old
    assert old.listeners.closed  # type: ignore[attr-defined]
    assert old.netns.fd == -1
    assert list(here.proxies.values()) == [new]


def test_a_descriptor_that_is_no_namespace_is_refused_and_closed() -> None:
    with world() as here:
        fd = os.open("/dev/null", os.O_RDONLY)
        with pytest.raises(DataPlaneError, match="cannot enter the network namespace"):
            here.add_proxy("x", WorkloadInfo("x", "default", "x"), fd)
        assert not here.proxies
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)


def test_a_failed_setns_leaves_the_thread_where_it_was(here: World) -> None:
    wrong = Netns(os.open("/dev/null", os.O_RDONLY))
    with pytest.raises(NetnsError, match="CAP_SYS_ADMIN"):
        here.netns.socket(wrong, socket.AF_INET)
    here.netns.socket(here.netns.home, socket.AF_INET).close()
    wrong.close()
    with pytest.raises(NetnsError, match="closed already"):
        here.netns.enter(wrong)


def test_a_closed_namespace_is_not_entered_even_when_the_thread_is_there(here: World) -> None:
    gone = Netns(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
    gone.close()
    with pytest.raises(NetnsError, match="closed already"):
        here.netns.socket(gone, socket.AF_INET)


def test_releasing_a_namespace_leaves_it(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[int] = []

    class Libc:
        def setns(self, fd: int, _: int) -> int:
            entered.append(fd)
            return 0

    monkeypatch.setattr("ztunnel.dataplane.netns._libc", Libc())
    pod = Netns(os.open("/dev/null", os.O_RDONLY))
    here.netns.enter(pod)
    fd = pod.fd
    here.netns.release(pod)
    assert entered == [fd, here.netns.home.fd]
    assert pod.fd == -1
    here.netns.enter(here.netns.home)
    assert len(entered) == 2


def test_shed_refuses_one_connection_with_the_spare_descriptor(here: World) -> None:
    with listener() as listening:
        client = socket.create_connection(listening.getsockname())
        before = here._spare
        assert here.shed(listening) == "127.0.0.1"
        assert here._spare is not None
        assert before is not None
        with client, pytest.raises(ConnectionResetError):
            client.recv(1)
        assert here.shed(listening) is None  # nobody waits any more
        spare, here._spare = here._spare, None
        assert here.shed(listening) is None
        os.close(spare)
        later(here, 0)
        assert here._spare is not None  # a tick takes another


@pytest.mark.parametrize("direction", ["outbound", "inbound"])
def test_without_descriptors_the_listener_sheds(here: World, direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = add_pod(here, CLIENT)
    with listener() as listening:
        accept = pod.accept_outbound if direction == "outbound" else pod.accept_plain

        class Exhausted:
            def _accept(self) -> None:
                raise OSError(24, "Too many open files")

            def accept(self) -> tuple[socket.socket, tuple[str, int]]:
                return listening.accept()

        with socket.create_connection(listening.getsockname()):
            _Acceptor(pod, Exhausted(), socket.AF_INET, accept).on_event(1)  # type: ignore[arg-type]
    (record,) = records(here)
    assert (record.direction, record.reason) == (direction, CloseReason.OVERLOADED)
    assert "raise the limit" in record.detail


def test_a_bug_while_accepting_does_not_leave_the_client_waiting(here: World) -> None:
    pod = add_pod(here, CLIENT)

    def bug(*_: object) -> None:
        raise ValueError("a bug")

    with listener() as listening:
        acceptor = _Acceptor(pod, listening, socket.AF_INET, bug)
        here.loop.add(listening.fileno(), 1, acceptor.on_event)
        with socket.create_connection(listening.getsockname()) as client:
            until(lambda: here.faults, here)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        here.loop.remove(listening.fileno())


def test_gauges_are_numbers_under_legal_names(here: World) -> None:
    add_pod(here, CLIENT)
    found = gauges(here)
    assert found["workloads_proxied"] == 1
    assert found["connections_open"] == 0
    assert all(name.replace("_", "").isalnum() and isinstance(value, float) for name, value in found.items())


def test_a_removed_pods_peers_are_refused_while_they_wait_for_its_certificate(here: World) -> None:
    pod = add_pod(here, CLIENT)
    here.identities = type(here.identities)(here)
    near, far = tcp_pair()
    pod.accept_hbone(near, socket.AF_INET, ("127.0.0.1", 5))
    assert NeedCertificate(CLIENT.identity) in said(here)
    here.remove_proxy("client")
    with far, pytest.raises(ConnectionResetError):
        far.recv(1)
    (record,) = records(here)
    assert record.reason == CloseReason.CERTIFICATE_UNAVAILABLE
    here.identities.arrived(certificate(CLIENT.identity))
    assert not here.tunnels
    assert not here._where


def test_who_waits_for_a_certificate_goes_on_with_it(here: World) -> None:
    pod = add_pod(here, CLIENT)
    here.identities = type(here.identities)(here)
    near, far = tcp_pair()
    pod.accept_hbone(near, socket.AF_INET, ("127.0.0.1", 5))
    here.identities.arrived(certificate(CLIENT.identity))
    assert len(here.tunnels) == len(pod.server_tunnels) == 1
    assert not pod._waiting
    far.close()
    until(lambda: not here.tunnels, here)


def test_who_waits_for_state_is_refused_in_time_or_goes_on(here: World) -> None:
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    pod = here.add_proxy("client", WorkloadInfo("client", "default", "client"), fd)
    near, far = tcp_pair()
    pod.accept_outbound(near, socket.AF_INET, ("127.0.0.1", 5))
    later(here, 4.9)
    assert not records(here)
    later(here, 0.2)
    (record,) = records(here)
    assert record.reason == CloseReason.LOCAL_WORKLOAD_UNKNOWN
    with far, pytest.raises(ConnectionResetError):
        far.recv(1)
    near, far = tcp_pair()
    pod.accept_hbone(near, socket.AF_INET, ("127.0.0.1", 5))
    here.identities.arrived(certificate(CLIENT.identity))
    here.state.upsert_workload(CLIENT)
    here.state_complete(1)
    assert len(pod.server_tunnels) == 1
    far.close()
    until(lambda: not here.tunnels, here)


def test_recheck_ends_what_is_no_longer_allowed_and_survives_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    from policy.model import Action, Authorization, Match, Scope

    without_listeners(monkeypatch)
    with world() as client, world() as server:
        mesh = Mesh(client, server)
        kept = [mesh.connect() for _ in range(3)]
        conns = list(server.registry.conns)
        server.state_complete(2)
        turn(server)
        assert list(server.registry.conns) == conns
        assert all(conn.why for conn in conns)
        first = conns[0]
        assert isinstance(first, InboundConn)
        first.deliver = None  # type: ignore[assignment]  # a bug: it cannot be judged
        server.state_complete(3)
        turn(server)
        assert server.faults == 1
        assert first.closed
        assert list(server.registry.conns) == conns[1:]
        deny = Authorization(
            name="no",
            namespace="default",
            scope=Scope.NAMESPACE,
            action=Action.DENY,
            rules=(((Match(destination_ports=(mesh.port,)),),),),
        )
        server.policies.upsert(deny)
        server.state_complete(4)
        until(lambda: server.idle, server)
        ended = records(server)
        assert [record.reason for record in ended] == [CloseReason.INTERNAL] + [CloseReason.POLICY_CHANGED] * 2
        assert ended[1].policy == "default/no"
        mesh.until(lambda: client.idle)
        mesh.close()
        del kept


def test_drain_takes_nothing_new_and_lets_the_open_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    without_listeners(monkeypatch)
    with world() as client, world() as server:
        mesh = Mesh(client, server)
        app, there = mesh.connect()
        server.drain()
        assert server.draining
        assert mesh.server_pod.listeners.closed  # type: ignore[attr-defined]
        mesh.until(lambda: not mesh.client_pod.pool.tunnels())
        app.send(b"still")
        mesh.until(lambda: there.recv(5, socket.MSG_PEEK) == b"still" if server.registry.conns and _readable(there) else False)
        server.remove_proxy("server", CloseReason.DRAINED)
        (record,) = records(server)
        assert record.reason == CloseReason.DRAINED
        mesh.until(lambda: client.idle)
        mesh.close()
        assert SERVER.name not in server.proxies


def _readable(sock: socket.socket) -> bool:
    import select

    return bool(select.select([sock], [], [], 0)[0])


class _Open:
    """A connection as recheck sees it."""

    closed = False


def test_recheck_passes_nobody_over_when_updates_do_not_end(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[object] = set()
    monkeypatch.setattr(here.recheck, "_look", seen.add)
    conns = [_Open() for _ in range(10 * SLICE)]
    here.registry.conns.update(dict.fromkeys(conns))  # type: ignore[arg-type]
    for _ in range(4):
        here.recheck.start()
        for _ in range(4):
            here.recheck._slice()
    assert seen == set(conns)
    here.registry.conns.clear()


def test_before_the_first_whole_state_nobody_is_decided_for(here: World) -> None:
    here.complete = False
    pod = add_pod(here, CLIENT)
    assert pod.workload() is not None
    here.complete = False
    here.bump()
    assert pod.workload() is None
