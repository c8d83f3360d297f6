"""Pods that leave, come and are replaced while the mesh runs."""

import os
from contextlib import ExitStack
from pathlib import Path

from ambient.lab import Pod, PodSpec
from tests.system.apps import Server, Town, attempt, connect, ending, read_exactly, until


def leave_and_return(town: Town, *pairs: tuple[Pod, Pod]) -> list[str]:
    """``near`` leaves the mesh with these connections open, and comes back: how the connections ended for their clients."""
    with ExitStack() as stack:
        for pod in (town.near, town.far, town.client):
            stack.enter_context(Server(pod).echo())
        socks = [stack.enter_context(connect(client, server.ipv4)) for client, server in pairs]
        keeps = stack.enter_context(connect(town.client, town.far.ipv4))
        for sock in [*socks, keeps]:
            sock.settimeout(1)
            sock.sendall(b"1")
            assert read_exactly(sock, 1) == b"1"
        try:
            town.mesh.meshed.discard("near")
            with town.counted((town.node_1, "workload_removed")):
                town.mesh.write_pods(town.node_1)
                ends = [ending(sock) for sock in socks]
            keeps.sendall(b"2")
            assert read_exactly(keeps, 1) == b"2"
            town.apply()
            town.works(town.client, town.near)
            assert attempt(town.near, town.near.ipv4, 15008) == "refused"
        finally:
            town.mesh.meshed.add("near")
            town.mesh.write_pods(town.node_1)
            town.apply()
        until(lambda: town.dump(town.node_1)["workloadState"].get(town.near.uid, {}).get("state") == "Up")
    town.mark()
    town.works(town.client, town.near)
    town.logged(town.node_1, "complete", path="same_node", direction="inbound")
    return ends


def test_who_talks_to_a_pod_that_leaves_the_mesh_is_told(town: Town) -> None:
    """Across nodes and within its own."""
    assert leave_and_return(town, (town.client, town.near), (town.far, town.near)) == ["reset", "reset"]


def test_connections_redirected_in_a_pod_that_leaves_the_mesh_are_reset(town: Town) -> None:
    """Those it opened itself, and plain ones to it, whose bytes pass its own redirection."""
    pairs = (town.near, town.far), (town.near, town.client), (town.plain_1, town.near)
    assert leave_and_return(town, *pairs) == ["reset", "reset", "reset"]


def test_the_data_plane_does_not_hold_a_gone_pods_namespace(town: Town) -> None:
    """A namespace lives as long as a thread is in it or a descriptor is on it; the CNI waits for its interfaces to go."""
    pod = town.lab.add_pod("node-2", PodSpec("brief", "shop", "brief"))
    inode = os.stat(pod.netns).st_ino
    town.mesh.meshed.add("brief")
    try:
        town.apply()
        town.mesh.write_pods(town.node_2)
        until(lambda: "brief" in {v["info"]["name"] for v in town.dump(town.node_2)["workloadState"].values()})
        with Server(pod) as app, connect(town.client, pod.ipv4):
            app.accept()[0].close()
    finally:
        town.mesh.meshed.discard("brief")
        town.mesh.write_pods(town.node_2)
        until(lambda: "brief" not in {v["info"]["name"] for v in town.dump(town.node_2)["workloadState"].values()})
        pid = town.proxy(town.node_2)
        held = {os.stat(link).st_ino for task in Path(f"/proc/{pid}/task").iterdir() for link in [task / "ns/net"]}
        fds = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.exists()]
        town.lab.remove_pod("brief")
        town.apply()
    assert inode not in held
    assert f"net:[{inode}]" not in fds
    town.works()


def test_a_pod_that_comes_later_and_is_replaced_under_its_uid(town: Town) -> None:
    """Created, enrolled, used; its namespace is replaced by another of the same name; used again."""
    for _ in range(2):
        pod = town.lab.add_pod("node-2", PodSpec("late", "shop", "late", index=77))
        town.mesh.meshed.add("late")
        town.apply()
        town.mesh.write_pods(town.node_2)
        until(lambda pod=pod: town.dump(town.node_2)["workloadState"].get(pod.uid, {}).get("state") == "Up")
        town.mark()
        town.works(town.client, pod)
        town.works(pod, town.client)
        town.logged(town.node_2, "complete", path="tunnel", direction="inbound")
        with Server(pod).echo(), connect(town.client, pod.ipv4) as sock:
            sock.sendall(b"1")
            assert read_exactly(sock, 1) == b"1"
            town.mesh.meshed.discard("late")
            town.mesh.write_pods(town.node_2)
            assert ending(sock) == "reset"
        town.logged(town.node_2, "workload_removed")
        town.lab.remove_pod("late")
    town.apply()
    town.works()
