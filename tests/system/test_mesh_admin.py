"""A running mesh looked at: config_dump, the command line against it and against a saved dump, readiness, log levels."""

import json
from pathlib import Path

import pytest

from tests.system.apps import Server, Town, command, connect, read_exactly, until


def test_config_dump_shows_each_open_connection_and_why(town: Town) -> None:
    town.policy("let-in", "Allow", [[[{"namespaces": [{"Exact": "shop"}]}]]])
    town.apply()
    with (
        Server(town.far).echo(),
        Server(town.near).echo(),
        connect(town.client, town.far.ipv4) as one,
        connect(town.client, town.near.ipv4) as two,
    ):
        for sock in (one, two):
            sock.sendall(b"abc")
            assert read_exactly(sock, 3) == b"abc"
        mine = town.dump(town.node_1)["workloadState"][town.client.uid]["connections"]["outbound"]
        by_path = {c["path"]: c for c in mine}
        assert set(by_path) == {"tunnel", "same_node"}
        tunnel = by_path["tunnel"]
        assert tunnel["src"] == "{}:{}".format(*one.getsockname())
        assert tunnel["originalDst"] == f"{town.far.ipv4}:8080"
        assert tunnel["protocol"] == "HBONE"
        assert tunnel["why"] == "the destination is in the mesh"
        assert by_path["same_node"]["why"] == "both workloads are on this node"
        there = town.dump(town.node_2)["workloadState"][town.far.uid]["connections"]["inbound"]
        assert [c["path"] for c in there] == ["tunnel"]
        assert "shop/let-in" in there[0]["why"]
    until(lambda: not town.open_connections())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["workloads"], ["client", "far", "HBONE", "plain-2", "TCP"]),
        (["services"], ["web", "10.96.0.7"]),
        (["policies"], ["watched", "Deny"]),
        (["certificates"], ["spiffe://cluster.local/ns/shop/sa/client", "Leaf", "Root"]),
        (["connections"], ["client", "8080"]),
        (["all"], ["client", "web", "watched", "spiffe://"]),
    ],
    ids=lambda value: value[0],
)
def test_the_command_reads_a_running_proxy_and_a_saved_dump(town: Town, tmp_path: Path, args: list[str], words: list[str]) -> None:
    town.policy("watched", "Deny", [[[{"namespaces": [{"Exact": "nowhere"}]}]]])
    service = {
        "name": "web",
        "namespace": "shop",
        "hostname": "web.shop.svc.cluster.local",
        "vips": ["/10.96.0.7"],
        "ports": {80: 8080},
    }
    town.mesh.services.append(service)
    town.apply()
    with Server(town.far).echo(), connect(town.client, town.far.ipv4) as sock:
        sock.sendall(b"x")
        assert read_exactly(sock, 1) == b"x"
        live = command(town.node_1, *args)
        saved = tmp_path / "dump.json"
        saved.write_text(json.dumps(town.dump(town.node_1)))
    assert (live.returncode, live.stderr) == (0, "")
    offline = command(town.node_1, *args, "-f", str(saved))
    assert offline.returncode == 0
    for word in words:
        assert word in live.stdout
        assert word in offline.stdout
    shaped = command(town.node_1, *args, "-f", str(saved), "-o", "json")
    assert shaped.returncode == 0
    assert json.loads(shaped.stdout)


def test_a_proxy_that_does_not_run_is_told_in_a_sentence(town: Town) -> None:
    said = command(town.node_1, "workloads", "--admin-port", "15999")
    assert said.returncode != 0
    assert "15999" in said.stderr
    assert "Traceback" not in said.stderr


def test_the_log_level_changes_and_is_reset(town: Town) -> None:
    before = command(town.node_1, "log")
    assert before.returncode == 0
    try:
        changed = command(town.node_1, "log", "--level", "access=off")
        assert changed.returncode == 0, changed.stderr
        town.works()
        town.logged(town.node_2, "complete")
        assert not town.lines(town.node_1)
    finally:
        assert command(town.node_1, "log", "--reset").returncode == 0
    assert command(town.node_1, "log").stdout == before.stdout
    town.works()
    town.logged(town.node_1, "complete")


def test_a_level_that_does_not_exist_is_refused(town: Town) -> None:
    try:
        assert town.mesh.get(town.node_1, 15000, "/logging?level=loudest", method="POST")[0] == 400
    finally:
        command(town.node_1, "log", "--reset")


def test_readiness_tells_what_is_missing(town: Town) -> None:
    assert town.mesh.get(town.node_1, 15021, "/healthz/ready") == (200, "ready\n") or town.mesh.get(
        town.node_1, 15021, "/healthz/ready"
    ) == (200, "ready")
    agent = town.mesh.agents.pop("node-1")
    agent.terminate()
    agent.wait(5)
    try:
        until(lambda: town.mesh.get(town.node_1, 15021, "/healthz/ready")[0] != 200)
        assert "workload proxy manager" in town.mesh.get(town.node_1, 15021, "/healthz/ready")[1]
        town.works()  # the agent's absence hurts nobody who is served already
    finally:
        town.mesh.start_agent(town.node_1)
    town.mesh.wait_ready(town.node_1)
    town.works()
    town.works(town.far, town.client)


def test_metrics_and_admin_answer_while_connections_stream(town: Town) -> None:
    for path, port in (("/metrics", 15020), ("/stats/prometheus", 15020), ("/config_dump", 15000)):
        status, body = town.mesh.get(town.node_1, port, path)
        assert status == 200
        assert body
    assert town.mesh.get(town.node_1, 15000, "/nonsense")[0] == 404
