"""The same mesh on each capture backend, and the proxy of a single workload."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ambient.lab import LabSpec, NodeSpec, PodSpec
from capture.detect import BackendChoice
from tests.system.apps import Server, Town, connect, new_town, read_exactly, until

SMALL = LabSpec(
    nodes=(NodeSpec("node-1", (PodSpec("client", "shop", "client"),)), NodeSpec("node-2", (PodSpec("far", "shop", "far"),)))
)


@pytest.mark.parametrize("backend", [b.value for b in BackendChoice if b is not BackendChoice.AUTO])
def test_across_nodes_on_each_backend(tmp_path: Path, backend: str) -> None:
    with new_town(tmp_path, spec=SMALL, backend=backend) as town:
        client, far = town.client, town.far
        for source, target, ip in ((client, far, far.ipv4), (client, far, far.ipv6), (far, client, client.ipv6)):
            assert ip is not None
            town.mark()
            with Server(target).echo(b"hello"), connect(source, ip) as sock:
                sock.sendall(b"you")
                assert read_exactly(sock, 8) == b"helloyou"
            town.logged(source.node, "complete", path="tunnel", direction="outbound")
            town.logged(target.node, "complete", path="tunnel", direction="inbound")


def test_dedicated_to_one_workload(town: Town) -> None:
    """A proxy in the pod's own namespace, without agent or capture: what is tunnelled to the pod arrives."""
    town.mesh.overrides["plain-2"] = {"protocol": "HBONE"}
    town.apply()
    env = {**os.environ, "PROXY_MODE": "dedicated", "PROXY_WORKLOAD_INFO": "shop/plain-2/plain", "ENABLE_ORIG_SRC": "false"}
    env |= {"LOCAL_XDS_PATH": str(town.mesh.state_path), "LOCAL_CA_DIR": str(town.mesh.ca_dir), "NODE_NAME": "node-2"}
    env |= {"XDS_ADDRESS": "", "CA_ADDRESS": ""}
    log = town.mesh.directory / "dedicated.log"
    with log.open("ab") as out:
        proxy = town.plain_2.popen([sys.executable, "-m", "ztunnel.cli", "run"], env=env, stdout=out, stderr=subprocess.STDOUT)

    def ready() -> bool:
        with town.plain_2.socket() as sock:
            sock.settimeout(1)
            try:
                sock.connect(("127.0.0.1", 15021))
                sock.sendall(b"GET /healthz/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                return b" 200 " in sock.recv(100)
            except OSError:
                return False

    try:
        until(ready, 10, "the dedicated proxy does not become ready")
        with Server(town.plain_2).echo(), connect(town.client, town.plain_2.ipv4) as sock:
            sock.sendall(b"hello")
            assert read_exactly(sock, 5) == b"hello"
        assert town.logged(town.node_1, "complete", path="tunnel")["dst.workload"] == "plain-2"
        until(lambda: 'direction="inbound"' in log.read_text(), said=log.read_text())
    finally:
        proxy.terminate()
        status = proxy.wait(8)
    assert status == 0, log.read_text()
