"""Two sockets side by side: bytes, ends and resets as the applications at both ends see them."""

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from tests.worlds import CLIENT, LOCAL, accept, add_pod, listener, records, tcp_pair, turn, until, without_listeners, world
from ztunnel.dataplane.pair import SCRATCH, InboundPair, Pair, connect_failure
from ztunnel.dataplane.proxy import PodProxy
from ztunnel.dataplane.sockets import reset_on_close
from ztunnel.dataplane.world import World
from ztunnel.link.messages import Party
from ztunnel.reasons import CloseReason


class Ends:
    """A client, a pair in the middle, a server."""

    def __init__(self, pod: PodProxy, kind: type[Pair] = Pair) -> None:
        self.world = pod.world
        self.client, captured = tcp_pair()
        self.listening = listener()
        self.pair = kind(pod, captured, "10.0.0.1:1", "10.0.0.2:80")
        self.pair.opened(pod.world.registry.series("source", Party(), Party(), "", "unknown", "passthrough"))
        port = self.listening.getsockname()[1]
        self.pair.begin(pod.netns, LOCAL, port, "", f"{LOCAL}:{port}")
        turn(self.world)
        self.server = accept(self.listening)

    def close(self) -> None:
        for sock in (self.client, self.server, self.listening):
            sock.close()

    def reason(self) -> CloseReason:
        """Why it ended; it has by now."""
        assert self.pair.closed
        (record,) = records(self.world)
        return CloseReason(record.reason)


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch) -> Iterator[PodProxy]:
    without_listeners(monkeypatch)
    with world() as made:
        yield add_pod(made, CLIENT)


@pytest.fixture
def ends(pod: PodProxy) -> Iterator[Ends]:
    made = Ends(pod)
    yield made
    made.close()


def received(sock: socket.socket, where: World, size: int) -> bytes:
    """``size`` bytes, or what came before FIN."""
    data = bytearray()
    done = False

    def more() -> bool:
        nonlocal done
        try:
            part = sock.recv(1 << 20)
        except BlockingIOError:
            return False
        data.extend(part)
        done = not part
        return done or len(data) >= size

    until(more, where)
    return bytes(data)


def fill(sock: socket.socket, where: World) -> int:
    """Send until nothing moves any more; how many bytes that took."""
    total = idle = 0
    while idle < 20:
        try:
            total += sock.send(bytes(1 << 16))
            idle = 0
        except BlockingIOError:
            idle += 1
            turn(where)
    return total


def test_bytes_both_ways_are_counted(ends: Ends) -> None:
    ends.client.send(b"question")
    assert received(ends.server, ends.world, 8) == b"question"
    ends.server.send(b"an answer")
    assert received(ends.client, ends.world, 9) == b"an answer"
    assert (ends.pair.from_app, ends.pair.to_app) == (8, 9)
    assert ends.pair.series is not None
    assert (ends.pair.series.from_app, ends.pair.series.to_app) == (8, 9)


def test_an_inbound_pairs_application_is_the_server(pod: PodProxy) -> None:
    ends = Ends(pod, InboundPair)
    ends.client.send(b"question")
    received(ends.server, ends.world, 8)
    assert (ends.pair.from_app, ends.pair.to_app) == (0, 8)
    ends.close()


def test_half_close_lets_the_other_half_go_on(ends: Ends) -> None:
    ends.client.send(b"all I have")
    ends.client.shutdown(socket.SHUT_WR)
    assert received(ends.server, ends.world, 1 << 20) == b"all I have"
    assert not ends.pair.closed
    ends.server.send(b"still here")
    assert received(ends.client, ends.world, 10) == b"still here"
    ends.server.close()
    assert received(ends.client, ends.world, 1) == b""
    turn(ends.world)
    assert ends.reason() is CloseReason.COMPLETE


def test_the_server_may_end_first(ends: Ends) -> None:
    ends.server.shutdown(socket.SHUT_WR)
    assert received(ends.client, ends.world, 1) == b""
    ends.client.send(b"late")
    assert received(ends.server, ends.world, 4) == b"late"
    ends.client.close()
    until(lambda: ends.pair.closed, ends.world)
    assert ends.reason() is CloseReason.COMPLETE


@pytest.mark.parametrize(("side", "reason"), [("client", CloseReason.CLIENT_RESET), ("server", CloseReason.SERVER_RESET)])
def test_a_reset_is_a_reset_at_the_other_end(ends: Ends, side: str, reason: CloseReason) -> None:
    near, far = (ends.client, ends.server) if side == "client" else (ends.server, ends.client)
    reset_on_close(near)
    near.close()
    until(lambda: ends.pair.closed, ends.world)
    with pytest.raises(ConnectionResetError):
        far.recv(1)
    assert ends.reason() is reason


def test_a_slow_reader_stops_the_writer_and_owns_one_read_at_most(ends: Ends) -> None:
    sent = fill(ends.client, ends.world)
    side = ends.pair._b
    assert side is not None
    assert side.pending is not None
    assert 0 < len(side.pending) <= SCRATCH
    assert ends.pair._a._paused
    ends.client.shutdown(socket.SHUT_WR)
    assert len(received(ends.server, ends.world, 1 << 62)) == sent
    assert side.pending is None


def test_a_paused_side_that_is_reset_ends_the_pair(ends: Ends) -> None:
    fill(ends.client, ends.world)
    reset_on_close(ends.client)
    ends.client.close()
    until(lambda: ends.pair.closed, ends.world)
    assert ends.reason() is CloseReason.CLIENT_RESET


def test_a_full_server_that_has_ended_still_gets_everything(ends: Ends) -> None:
    """Both FINs are here while the client's bytes still wait for the server: that is a hang-up to epoll, and no reset."""
    side = ends.pair._b
    assert side is not None
    sent = 0
    while side.pending is None:
        sent += ends.client.send(bytes(1 << 16))
        turn(ends.world)
    ends.client.shutdown(socket.SHUT_WR)
    ends.server.shutdown(socket.SHUT_WR)
    assert received(ends.client, ends.world, 1) == b""
    until(lambda: ends.pair._a._muted, ends.world)
    before = ends.world.loop.events
    for _ in range(5):
        turn(ends.world)
    assert ends.world.loop.events == before, "level-triggered HUP would keep the loop busy"
    assert len(received(ends.server, ends.world, 1 << 62)) == sent
    until(lambda: ends.pair.closed, ends.world)
    assert ends.reason() is CloseReason.COMPLETE


def test_kill_resets_both_ends_once(ends: Ends) -> None:
    ends.pair.kill(CloseReason.POLICY_CHANGED, "why")
    ends.pair.kill(CloseReason.INTERNAL)
    turn(ends.world)
    for sock in (ends.client, ends.server):
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert ends.reason() is CloseReason.POLICY_CHANGED
    assert ends.world.idle


def test_a_refusing_application_looks_dead(pod: PodProxy) -> None:
    with listener() as gone:
        port = gone.getsockname()[1]
    client, captured = tcp_pair()
    pair = Pair(pod, captured, "10.0.0.1:1", "10.0.0.2:80")
    pair.opened(pod.world.registry.series("source", Party(), Party(), "", "unknown", "passthrough"))
    pair.begin(pod.netns, LOCAL, port, "", f"{LOCAL}:{port}")
    until(lambda: pair.closed, pod.world)
    turn(pod.world)
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)
    (record,) = records(pod.world)
    assert record.reason == CloseReason.APP_REFUSED
    assert record.detail == f"{LOCAL}:{port}: Connection refused"


def test_a_dial_without_an_answer_times_out(pod: PodProxy) -> None:
    client, captured = tcp_pair()
    full = listener(backlog=0)
    others = []
    for _ in range(2):  # fill the backlog: the next SYN is not answered
        other = socket.socket()
        other.setblocking(False)
        other.connect_ex(full.getsockname())
        others.append(other)
    pair = Pair(pod, captured, "10.0.0.1:1", "10.0.0.2:80")
    pair.opened(pod.world.registry.series("source", Party(), Party(), "", "unknown", "passthrough"))
    port = full.getsockname()[1]
    pair.begin(pod.netns, LOCAL, port, "", f"{LOCAL}:{port}")
    turn(pod.world)
    assert pair._connecting
    pod.world.loop.now += 11
    pod.world._tick()
    assert pair.closed
    (record,) = records(pod.world)
    assert record.reason == CloseReason.APP_TIMEOUT
    turn(pod.world)
    for sock in (client, full, *others):
        sock.close()


def test_errnos_have_their_reasons() -> None:
    assert connect_failure(errno.ECONNREFUSED) is CloseReason.APP_REFUSED
    assert connect_failure(errno.ETIMEDOUT) is CloseReason.APP_TIMEOUT
    assert connect_failure(errno.EMFILE) is CloseReason.OVERLOADED
    assert connect_failure(errno.EHOSTUNREACH) is CloseReason.APP_UNREACHABLE
    assert connect_failure(None) is CloseReason.APP_UNREACHABLE


def test_a_pair_leaves_no_descriptor(pod: PodProxy) -> None:
    before = len(os.listdir("/proc/self/fd"))
    ends = Ends(pod)
    ends.client.close()
    ends.server.close()
    until(lambda: ends.pair.closed, pod.world)
    ends.listening.close()
    assert len(os.listdir("/proc/self/fd")) == before
