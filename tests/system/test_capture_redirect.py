"""What the rules do to real connections, by every backend and in both families. No proxy: its listeners are plain sockets here."""

import socket
from collections.abc import Iterator

import pytest

from capture.constants import PORT_DNS_PROXY, PORT_HBONE, PORT_INBOUND_PLAINTEXT, PORT_OUTBOUND, PROBE_IPV4, PROBE_IPV6, PROXY_MARK
from capture.detect import BackendChoice
from capture.manager import apply
from capture.rules import CaptureConfig
from tests.system.capture_netns import Pair, loopback, nothing_pending, original_destination, pair_of_pods, refused

BACKENDS = [BackendChoice.NFTABLES, BackendChoice.IPTABLES_NFT, BackendChoice.IPTABLES_LEGACY]
FAMILIES = [socket.AF_INET, socket.AF_INET6]
PROBE = {socket.AF_INET: PROBE_IPV4, socket.AF_INET6: PROBE_IPV6}


@pytest.fixture(scope="module", params=BACKENDS)
def captured(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with pair_of_pods() as pair:
        assert apply(pair.pod.path, CaptureConfig(), backend=request.param).backend == request.param
        yield pair


@pytest.fixture(params=FAMILIES, ids=["v4", "v6"])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_outbound_is_captured_with_its_destination(captured: Pair, family: int) -> None:
    pod, peer = captured.pod, captured.peer.addresses[family]
    with pod.listen(family, PORT_OUTBOUND, transparent=True) as proxy, pod.connect(family, peer, 7000) as client:
        accepted, source = proxy.accept()
        with accepted:
            assert original_destination(accepted) == (peer, 7000)
            assert source[0] == pod.addresses[family]
            assert client.getpeername()[:2] == (peer, 7000)
            client.sendall(b"ping")
            assert accepted.recv(9) == b"ping"
            accepted.sendall(b"pong")
            assert client.recv(9) == b"pong"


def test_inbound_is_captured_with_its_destination_and_source(captured: Pair, family: int) -> None:
    pod, peer = captured.pod, captured.peer
    address = pod.addresses[family]
    with (
        pod.listen(family, 7001) as application,
        pod.listen(family, PORT_INBOUND_PLAINTEXT, transparent=True) as proxy,
        peer.connect(family, address, 7001),
    ):
        accepted, source = proxy.accept()
        with accepted:
            assert original_destination(accepted) == (address, 7001)
            assert source[0] == peer.addresses[family]
        assert nothing_pending(application)


def test_hbone_is_not_redirected(captured: Pair, family: int) -> None:
    pod, peer = captured.pod, captured.peer
    with (
        pod.listen(family, PORT_HBONE) as hbone,
        pod.listen(family, PORT_INBOUND_PLAINTEXT) as plaintext,
        peer.connect(family, pod.addresses[family], PORT_HBONE),
    ):
        accepted, _ = hbone.accept()
        accepted.close()
        assert nothing_pending(plaintext)


def test_loopback_and_own_address_are_not_captured(captured: Pair, family: int) -> None:
    pod = captured.pod
    with pod.listen(family, 7002) as application, pod.listen(family, PORT_OUTBOUND) as out, pod.listen(family, 15006) as into:
        for address in (loopback(family), pod.addresses[family]):
            with pod.connect(family, address, 7002):
                application.accept()[0].close()
        assert nothing_pending(out)
        assert nothing_pending(into)


def test_the_proxys_mark_escapes(captured: Pair, family: int) -> None:
    pod, peer = captured.pod, captured.peer
    with (
        peer.listen(family, 7003) as outside,
        pod.listen(family, PORT_OUTBOUND) as proxy,
        pod.connect(family, peer.addresses[family], 7003, mark=PROXY_MARK),
    ):
        outside.accept()[0].close()
        assert nothing_pending(proxy)


def test_the_application_sees_the_clients_address_and_its_answers_come_back(captured: Pair, family: int) -> None:
    pod, peer = captured.pod, captured.peer
    address = pod.addresses[family]
    with (
        pod.listen(family, 7004) as application,
        pod.listen(family, PORT_INBOUND_PLAINTEXT, transparent=True) as proxy,
        peer.connect(family, address, 7004) as client,
    ):
        inbound, source = proxy.accept()
        with inbound, pod.connect(family, address, 7004, mark=PROXY_MARK, source=source[0]) as onward:
            served, seen = application.accept()
            with served:
                assert seen[0] == peer.addresses[family]
                client.sendall(b"question")
                onward.sendall(inbound.recv(99))
                assert served.recv(99) == b"question"
                served.sendall(b"x" * 200_000)
                served.shutdown(socket.SHUT_WR)
                total = 0
                while data := onward.recv(65536):
                    total += len(data)
                assert total == 200_000
                inbound.sendall(b"answer")
                assert client.recv(99) == b"answer"


def test_without_a_proxy_nothing_leaks(captured: Pair, family: int) -> None:
    pod, peer = captured.pod, captured.peer
    with peer.listen(family, 7005) as outside, pod.listen(family, 7005) as application:
        assert refused(lambda: pod.connect(family, peer.addresses[family], 7005))
        assert refused(lambda: peer.connect(family, pod.addresses[family], 7005))
        assert nothing_pending(outside)
        assert nothing_pending(application)


def test_probes_reach_the_application(captured: Pair, family: int) -> None:
    pod, peer = captured.pod, captured.peer
    with (
        pod.listen(family, 7006) as application,
        pod.listen(family, PORT_INBOUND_PLAINTEXT) as proxy,
    ):
        # The answers go by the default route, to the node's side, where the address has to be somebody's.
        peer.run("ip", "addr", "add", PROBE[family], "dev", "lo")
        with peer.connect(family, pod.addresses[family], 7006, source=PROBE[family]):
            served, seen = application.accept()
            served.close()
            assert seen[0] == PROBE[family]
        assert nothing_pending(proxy)


@pytest.mark.parametrize("port", [PORT_OUTBOUND, PORT_INBOUND_PLAINTEXT])
def test_direct_calls_of_the_proxys_ports_can_be_told_from_captured_ones(captured: Pair, family: int, port: int) -> None:
    """Every way to a proxy port ends at a listener with one of the proxy's own ports as original destination: it refuses those."""
    pod, peer = captured.pod, captured.peer
    with pod.listen(family, PORT_OUTBOUND) as out, pod.listen(family, PORT_INBOUND_PLAINTEXT) as into:
        listener = {PORT_OUTBOUND: out, PORT_INBOUND_PLAINTEXT: into}[port]
        for address in (loopback(family), pod.addresses[family]):
            with pod.connect(family, address, port):
                accepted = listener.accept()[0]
                with accepted:
                    assert original_destination(accepted) == (address, port)
        for client, target, taken_by in ((pod, peer, out), (peer, pod, into)):
            address = target.addresses[family]
            with client.connect(family, address, port):
                accepted = taken_by.accept()[0]
                with accepted:
                    assert original_destination(accepted) == (address, port)


def test_calling_another_pods_hbone_port_is_captured(captured: Pair, family: int) -> None:
    pod, peer = captured.pod, captured.peer.addresses[family]
    with pod.listen(family, PORT_OUTBOUND) as out, pod.connect(family, peer, PORT_HBONE):
        accepted = out.accept()[0]
        with accepted:
            assert original_destination(accepted) == (peer, PORT_HBONE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_variants(backend: BackendChoice) -> None:
    """DNS capture, ingress mode and virtual interfaces, one after the other in one pod."""
    with pair_of_pods() as pair:
        pod, peer = pair.pod, pair.peer
        apply(pod.path, CaptureConfig(dns_capture=True), backend=backend)
        for family in FAMILIES:
            _dns_is_captured(pair, family)
        apply(pod.path, CaptureConfig(ingress=True), backend=backend)
        for family in FAMILIES:
            address = pod.addresses[family]
            with pod.listen(family, 7010) as application, peer.connect(family, address, 7010):
                application.accept()[0].close()
            with pod.listen(family, PORT_OUTBOUND) as proxy, pod.connect(family, peer.addresses[family], 7010):
                proxy.accept()[0].close()
            # The connection marks are still there: what came by HBONE is delivered with the client's address.
            with (
                pod.listen(family, 7011) as application,
                pod.connect(family, address, 7011, mark=PROXY_MARK, source=peer.addresses[family]),
            ):
                application.accept()[0].close()
        apply(pod.path, CaptureConfig(virtual_interfaces=("eth0",)), backend=backend)
        for family in FAMILIES:
            with pod.listen(family, PORT_OUTBOUND) as proxy, peer.connect(family, pod.addresses[family], 7012):
                accepted = proxy.accept()[0]
                with accepted:
                    assert original_destination(accepted) == (pod.addresses[family], 7012)


def _dns_is_captured(pair: Pair, family: int) -> None:
    pod, resolver = pair.pod, pair.peer.addresses[family]
    with pod.make(family, socket.SOCK_DGRAM) as proxy, pod.make(family, socket.SOCK_DGRAM) as client:
        # Bound to loopback: answers from the wildcard would come from the pod's address and miss the translation.
        proxy.bind((loopback(family), PORT_DNS_PROXY))
        client.connect((resolver, 53))
        client.send(b"query")
        data, source = proxy.recvfrom(99)
        assert data == b"query"
        proxy.sendto(b"answer", source)
        assert client.recv(99) == b"answer"
        with (
            pair.peer.make(family, socket.SOCK_DGRAM) as upstream,
            pod.make(family, socket.SOCK_DGRAM, mark=PROXY_MARK) as onward,
        ):
            upstream.bind((resolver, 53))
            onward.connect((resolver, 53))
            onward.send(b"forwarded")
            data, source = upstream.recvfrom(99)
            assert data == b"forwarded"
            upstream.sendto(b"fetched", source)
            assert onward.recv(99) == b"fetched"
    with pod.listen(family, PORT_DNS_PROXY) as proxy, pod.connect(family, resolver, 53):
        accepted = proxy.accept()[0]
        with accepted:
            assert original_destination(accepted) == (resolver, 53)
