"""The control half dies: the data plane carries on, and nothing it counted or was to write is lost."""

import os
import signal
import time

from tests.system.apps import Server, Town, attempt, connect, read_exactly, until

OPENED = "istio_tcp_connections_opened_total"


def test_open_connections_go_on_and_new_ones_work_at_once(town: Town) -> None:
    with Server(town.far).echo(), connect(town.client, town.far.ipv4) as sock:
        sock.sendall(b"1")
        assert read_exactly(sock, 1) == b"1"
        for node in (town.node_1, town.node_2):
            town.kill_control(node)
        began = time.monotonic()
        sock.sendall(b"2")
        assert read_exactly(sock, 1) == b"2"
        town.works()
        town.works(town.client, town.near)
        assert time.monotonic() - began < 0.5
        for node in (town.node_1, town.node_2):
            town.mesh.wait_ready(node, 5)
        sock.sendall(b"3")
        assert read_exactly(sock, 1) == b"3"
    town.works()


def test_no_access_log_line_is_lost(town: Town) -> None:
    """Connections that end before the death, unread by the dying, in the gap, and after; one line each, on each node."""
    n = 0

    def some() -> None:
        nonlocal n
        for _ in range(20):
            n += 1
            with connect(town.client, town.far.ipv4) as sock:
                sock.sendall(b"x" * n)
                assert len(read_exactly(sock, n)) == n

    nodes = (town.node_1, town.node_2)
    with Server(town.far).echo():
        some()
        stopped = [until(lambda node=node: town.control(node)) for node in nodes]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        some()
        # In the dying one's socket, which it will not read. The data plane reports ten times a second.
        time.sleep(0.3)
        for node in nodes:
            town.kill_control(node)
        some()
        for node in nodes:
            town.mesh.wait_ready(node, 10)
        some()
    for node in nodes:
        until(lambda node=node: len(town.lines(node)) >= n, said=f"{node.name}: {len(town.lines(node))} lines of {n}")
        assert sorted(int(line["bytes_sent"]) for line in town.lines(node)) == list(range(1, n + 1))


def test_totals_do_not_go_backwards(town: Town) -> None:
    names = {
        OPENED: {},
        "istio_tcp_connections_closed_total": {},
        "istio_tcp_sent_bytes_total": {},
        "ambient_refusals_total": {"reason": "recursive_call"},
    }
    with Server(town.far).echo(), town.counted((town.node_1, "recursive_call")):
        assert attempt(town.client, town.far.ipv4, 15001) == "reset"
        town.works()
    until(lambda: town.metric(town.node_1, OPENED) == town.metric(town.node_1, "istio_tcp_connections_closed_total"))
    before = {name: town.metric(town.node_1, name, **labels) for name, labels in names.items()}
    assert all(before.values())
    town.kill_control(town.node_1)
    town.mesh.wait_ready(town.node_1, 5)
    for name, labels in names.items():
        until(
            lambda name=name, labels=labels: town.metric(town.node_1, name, **labels) == before[name],
            said=f"{name}: {town.metric(town.node_1, name, **labels)}, before {before[name]}",
        )


def test_killed_three_times_in_a_row(town: Town) -> None:
    with Server(town.far).echo(), connect(town.client, town.far.ipv4) as sock:
        for _ in range(3):
            town.kill_control(town.node_2)
            until(lambda: town.control(town.node_2))
            sock.sendall(b"x")
            assert read_exactly(sock, 1) == b"x"
            town.works()
        town.mesh.wait_ready(town.node_2, 10)
        views = town.dump(town.node_2)["workloadState"][town.far.uid]["connections"]["inbound"]
        assert len(views) == 1
    town.works()
    town.apply()
    town.policy("nobody", "Allow", [])
    town.apply()
    assert attempt(town.client, town.far.ipv4) == "reset"
