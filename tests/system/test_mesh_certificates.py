"""Certificates under a running mesh: renewed, replaced, missing."""

import shutil
import time
from typing import Any

from ambient.lab import Node
from tests.system.apps import Server, Town, attempt, connect, lone_proxy, read_exactly, until
from tests.system.test_mesh_restart import restarted
from ztunnel.identity.ca_files import create_ca

CLIENT = "spiffe://cluster.local/ns/shop/sa/client"


def certificate(town: Town, node: Node, identity: str) -> dict[str, Any]:
    found: dict[str, Any] = next((c for c in town.dump(node)["certificates"] if c["identity"] == identity), {})
    return found


def serial(town: Town, node: Node, identity: str) -> str:
    chain = certificate(town, node, identity).get("certChain") or [{}]
    return str(chain[0].get("serialNumber", ""))


def test_renewed_at_about_half_life_while_traffic_goes_on(town: Town) -> None:
    with restarted(town, town.node_1, SECRET_TTL="4s"), Server(town.far).echo(), connect(town.client, town.far.ipv4) as sock:
        first = until(lambda: serial(town, town.node_1, CLIENT))
        began = time.monotonic()
        while serial(town, town.node_1, CLIENT) == first:
            sock.sendall(b"1")
            assert read_exactly(sock, 1) == b"1"
            assert time.monotonic() - began < 3.5, "not renewed"
            time.sleep(0.02)
        until(lambda: time.monotonic() - began > 4.5)  # the first certificate has expired
        sock.sendall(b"2")
        assert read_exactly(sock, 1) == b"2"
        town.works()
        town.works(town.far, town.client)
        assert certificate(town, town.node_1, CLIENT)["state"] == "Available"


def test_a_new_ca_gives_new_certificates(town: Town) -> None:
    """The directory's files are replaced by another CA's under both nodes: new tunnels trust it, open connections go on."""

    def serials() -> set[str]:
        return {c["certChain"][0]["serialNumber"] for node in (town.node_1, town.node_2) for c in town.dump(node)["certificates"]}

    before = serials()
    new = town.mesh.directory / "new-ca"
    shutil.rmtree(new, ignore_errors=True)
    create_ca(new, "second root", time.time())
    with Server(town.far).echo(), connect(town.client, town.far.ipv4) as sock:
        sock.sendall(b"1")
        assert read_exactly(sock, 1) == b"1"
        for file in sorted(new.iterdir()):
            file.replace(town.mesh.ca_dir / file.name)
        until(lambda: not serials() & before, 12)
        sock.sendall(b"2")
        assert read_exactly(sock, 1) == b"2"
    town.works()
    town.works(town.far, town.client)
    town.works(town.far_2, town.client)


def test_no_ca_means_certificate_unavailable(town: Town) -> None:
    """Nothing goes out in clear for want of a certificate, in either direction; plain traffic goes on."""
    with restarted(town, town.node_1, LOCAL_CA_DIR=""), Server(town.far).echo(), Server(town.client).echo():
        with town.counted((town.node_1, "certificate_unavailable")):
            assert attempt(town.client, town.far.ipv4) == "reset"
        assert "LOCAL_CA_DIR" in town.logged(town.node_1, "certificate_unavailable", direction="outbound")["error"]
        assert attempt(town.far, town.client.ipv4) == "reset"
        town.logged(town.node_1, "certificate_unavailable", direction="inbound")
        state = certificate(town, town.node_1, CLIENT).get("state", "")
        assert "Unavailable" in str(state)
        assert "LOCAL_CA_DIR" in str(state)
        town.works(town.client, town.near)
        town.works(town.client, town.plain_2)
    town.works()
    town.works(town.far, town.client)


def test_a_ca_directory_that_is_missing_at_the_start_is_named(town: Town) -> None:
    with lone_proxy(town, LOCAL_XDS_PATH=str(town.mesh.state_path), LOCAL_CA_DIR="/nonexistent/ca") as (proxy, said):
        until(lambda: "/nonexistent/ca" in said(), 10, "it does not name the directory")
        assert "Traceback" not in said()
        proxy.terminate()
        assert proxy.wait(5) == 0
