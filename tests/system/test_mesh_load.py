"""Readers that do not read, senders that hardly send, and no descriptors left: bounded, told, and over when the cause is."""

import hashlib
import os
import resource
import socket
import time

import pytest

from tests.system.apps import Server, Town, attempt, connect, cpu, noise, read_exactly, resident, sent_meanwhile, until

MIB = 1 << 20


def fill(sock: socket.socket, block: bytes, quiet: float = 0.3) -> int:
    """Send until nothing more is taken for ``quiet`` seconds: bytes taken. Sends ``block`` over and over."""
    sock.setblocking(False)
    sent, last = 0, time.monotonic()
    while time.monotonic() - last < quiet:
        try:
            sent += sock.send(block[sent % len(block) :])
            last = time.monotonic()
        except BlockingIOError:
            time.sleep(0.002)
    sock.settimeout(20)
    return sent


@pytest.mark.parametrize("server", ["far", "near"])
def test_a_reader_that_does_not_read_costs_a_window_and_gets_everything(town: Town, server: str) -> None:
    pod = town.lab.pods[server]
    pids = [town.proxy(n) for n in (town.node_1, town.node_2)]
    block = noise(MIB)
    with Server(pod) as app, connect(town.client, pod.ipv4) as sock:
        there, _ = app.accept()
        before = [resident(pid) for pid in pids]
        sent = fill(sock, block)
        grown = [(resident(pid) - was) / MIB for pid, was in zip(pids, before, strict=True)]
        assert max(grown) < 12, f"grown by {grown} MiB for one connection"
        assert sent > 100_000
        quiet = [cpu(pid) for pid in pids]
        time.sleep(0.3)
        assert all(cpu(pid) - was < 0.1 for pid, was in zip(pids, quiet, strict=True)), "a stalled connection keeps the loop busy"
        sock.shutdown(socket.SHUT_WR)
        with there:
            digest, n = hashlib.sha256(), 0
            while data := there.recv(1 << 18):
                digest.update(data)
                n += len(data)
        whole = (block * (sent // MIB + 1))[:sent]
        assert (n, digest.digest()) == (sent, hashlib.sha256(whole).digest())
    town.works(town.client, pod)


def speed(town: Town, n: int = 24 * MIB) -> float:
    """Bytes a second of a transfer from client to far."""
    block = noise(MIB)
    with Server(town.far, 7070) as app, connect(town.client, town.far.ipv4, 7070) as sock:
        there, _ = app.accept()
        with there:
            began = time.monotonic()
            sender = sent_meanwhile(sock, block * (n // MIB))
            left = n
            while left:
                left -= len(there.recv(min(left, 1 << 20)))
            sender.join()
            return n / (time.monotonic() - began)


def test_twenty_stalled_connections_do_not_slow_their_neighbours(town: Town) -> None:
    pid = town.proxy(town.node_2)
    speed(town, 8 * MIB)
    alone = max(speed(town) for _ in range(2))
    before = resident(pid)
    block = noise(MIB)
    with Server(town.far) as app:
        socks, theres = [], []
        for _ in range(20):
            socks.append(connect(town.client, town.far.ipv4))
            theres.append(app.accept()[0])
        sent = [fill(sock, block, quiet=0.05) for sock in socks]
        beside = max(speed(town) for _ in range(2))
        held = (resident(pid) - before) / MIB
        assert beside > alone / 3, f"{beside / MIB:.0f} MiB/s beside stalled connections, {alone / MIB:.0f} alone"
        assert held < 20 * 4 + 30, f"{held:.0f} MiB for 20 stalled connections"
        town.works()
        for sock, there, n in zip(socks, theres, sent, strict=True):
            sock.shutdown(socket.SHUT_WR)
            got = 0
            while data := there.recv(1 << 20):
                got += len(data)
            assert got == n
            sock.close()
            there.close()
    until(lambda: town.metric(town.node_2, "ambient_dataplane_held_bytes") == 0)


def test_stalled_connections_that_end_give_everything_back(town: Town) -> None:
    """Ended by reset from either end while bytes wait: the tunnel's window is whole again, shown by a large transfer in it."""
    block = noise(MIB)
    with Server(town.far) as app:
        for i in range(12):
            sock = connect(town.client, town.far.ipv4)
            there, _ = app.accept()
            fill(sock, block, quiet=0.03)
            first, second = (sock, there) if i % 2 else (there, sock)
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            first.close()
            second.close()
    assert speed(town, 32 * MIB) > MIB
    until(lambda: town.metric(town.node_2, "ambient_dataplane_held_bytes") == 0)


def test_a_slow_sender_is_passed_on_byte_by_byte(town: Town) -> None:
    with Server(town.far).echo(), connect(town.client, town.far.ipv4) as sock:
        for i in range(40):
            sock.sendall(bytes([i]))
            assert read_exactly(sock, 1) == bytes([i])


@pytest.mark.parametrize("number", [1, 2])
def test_no_descriptors_left(town: Town, number: int) -> None:
    """More connections than fit: the surplus is refused with a reason, the loop does not spin, and it passes."""
    node = town.lab.nodes[f"node-{number}"]
    pid = town.proxy(node)
    town.works()
    highest = max(int(fd) for fd in os.listdir(f"/proc/{pid}/fd"))
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    reason = "overloaded"
    socks = []
    try:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 30, limits[1]))
        with Server(town.far).echo(), town.counted((node, reason)):
            outcomes = {"served": 0, "refused": 0}
            for _ in range(80):
                try:
                    sock = connect(town.client, town.far.ipv4)
                    socks.append(sock)
                    sock.sendall(b"x")
                    outcomes["served" if read_exactly(sock, 1) == b"x" else "refused"] += 1
                except OSError:
                    outcomes["refused"] += 1
            assert min(outcomes.values()) >= 15, outcomes
            before = cpu(pid)
            time.sleep(0.3)
            assert cpu(pid) - before < 0.1, "it spins"
            served = socks[0]
            served.sendall(b"y")
            assert read_exactly(served, 1) == b"y"
    finally:
        for sock in socks:
            sock.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    if number == 1:
        assert town.logged(node, reason)["direction"] == "outbound"
    town.works()
    assert attempt(town.client, town.far.ipv4, 4444) == "reset"
