"""A lab for HBONE peers: one workload behind our real proxy, one pod without a proxy where a test speaks HBONE itself.

``app`` (node-1) is the workload under test; ``other`` is a second one of its node; ``friend`` (node-2) is a workload that a second
real proxy serves. ``peer`` (node-2) has no proxy: state says it speaks HBONE, so our proxy dials its port 15008, where the test
listens, and the test dials ``app``'s port 15008 from there. Sockets are made in the pods' namespaces by the test's own process.
"""

import json
import os
import re
import socket
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ambient.lab import Lab, LabSpec, NodeSpec, Pod, PodSpec
from ambient.lab.mesh import Mesh
from tests.certs import Authority, Minted, mint
from tests.system.peers.apps import Listening, echo

__all__ = ["DENIED_PORT", "ECHO_PORT", "TIMEOUT", "Bench", "bench", "identity"]

TIMEOUT: Final = 8.0
ECHO_PORT: Final = 8080
DENIED_PORT: Final = 7777
_DENY: Final = {
    "name": "not-7777",
    "namespace": "default",
    "scope": "Namespace",
    "action": "Deny",
    "dryRun": False,
    "rules": [[[{"destinationPorts": [DENIED_PORT]}]]],
}
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def identity(name: str, trust_domain: str = "cluster.local") -> str:
    """The SPIFFE id of a pod of the lab."""
    return f"spiffe://{trust_domain}/ns/default/sa/{name}"


class Bench:
    """The running lab, and what the proxy under test says of itself."""

    def __init__(self, lab: Lab, mesh: Mesh) -> None:
        self.lab = lab
        self.mesh = mesh
        self.app, self.other, self.peer, self.friend = (lab.pods[name] for name in ("app", "other", "peer", "friend"))
        self.node = self.app.node
        self.ca = Authority(
            *_read_ca(mesh.ca_dir),
        )
        self.peer_leaf = mint(self.ca, identity("peer"))

    # --- TLS ----------------------------------------------------------------------------------------------------------

    def context(self, leaf: Minted | None, *, server: bool = False, roots: bytes = b"") -> ssl.SSLContext:
        """TLS 1.3 by the standard library, h2 by ALPN. A client of it accepts whatever our proxy presents."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if server:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=(roots or self.peer_leaf.roots).decode())
        if leaf is not None:
            with tempfile.NamedTemporaryFile(dir=self.mesh.directory) as file:
                file.write(leaf.key + b"".join(leaf.chain))
                file.flush()
                context.load_cert_chain(file.name)
        context.set_alpn_protocols(["h2"])
        return context

    def dial(self, *, port: int = 15008, pod: Pod | None = None, family: int = socket.AF_INET) -> socket.socket:
        """TCP from the unmeshed pod to a port of ``app``."""
        pod = pod or self.app
        sock = self.peer.socket(family)
        sock.settimeout(TIMEOUT)
        try:
            sock.connect((pod.ipv6 if family == socket.AF_INET6 else pod.ipv4, port))
        except BaseException:
            sock.close()
            raise
        return sock

    def dial_tls(self, leaf: Minted | None = None, **kwargs: Any) -> ssl.SSLSocket:
        """The same with TLS, as ``peer`` unless ``leaf`` says otherwise."""
        return self.context(leaf or self.peer_leaf).wrap_socket(self.dial(**kwargs))

    # --- applications -------------------------------------------------------------------------------------------------

    def call(self, to: Pod, port: int = ECHO_PORT, *, by: Pod | None = None) -> socket.socket:
        """A plain connection of a meshed pod's application (``app``'s unless told), captured by its proxy."""
        sock = (by or self.app).socket()
        sock.settimeout(TIMEOUT)
        try:
            sock.connect((to.ipv4, port))
        except BaseException:
            sock.close()
            raise
        return sock

    # --- what the proxy says ------------------------------------------------------------------------------------------

    def mark(self) -> int:
        """Now, as a place in the log."""
        return self.mesh.log_path(self.node).stat().st_size

    def lines(self, mark: int = 0) -> list[str]:
        """The log's lines since ``mark``."""
        with self.mesh.log_path(self.node).open("rb") as file:
            file.seek(mark)
            return file.read().decode(errors="replace").splitlines()

    def logged(self, mark: int, *parts: str, seconds: float = TIMEOUT) -> str:
        """The first line since ``mark`` that contains all ``parts``, waited for."""
        deadline = time.monotonic() + seconds
        while True:
            lines = self.lines(mark)
            for line in lines:
                if all(part in line for part in parts):
                    return line
            if time.monotonic() > deadline:
                raise AssertionError("no line with {} in\n{}".format(parts, "\n".join(lines)))
            time.sleep(0.02)

    def samples(self) -> list[tuple[str, dict[str, str], float]]:
        """All metrics now: name, labels, value."""
        status, body = self.mesh.get(self.node, 15020, "/metrics")
        assert status == 200
        found = [_SAMPLE.match(line) for line in body.splitlines() if line and line[0] != "#"]
        return [(m[1], dict(_LABEL.findall(m[2] or "")), float(m[3])) for m in found if m]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of ``name`` that have ``labels``."""
        return sum(v for n, have, v in self.samples() if n == name and labels.items() <= have.items())

    def assert_counted(self, since: int = 0) -> None:
        """Every end in the access log is in the metrics, under the same reason, and the other way round."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            counted: Counter[tuple[str, str]] = Counter()
            for name, labels, value in self.samples():
                if name == "ambient_refusals_total":
                    counted[labels["direction"], labels["reason"]] += int(value)
                elif name == "ambient_connections_closed_total":
                    counted["outbound" if labels["reporter"] == "source" else "inbound", labels["reason"]] += int(value)
            logged = Counter(
                (m[1], m[2])
                for line in self.lines()
                if "\taccess\t" in line and (m := re.search(r'direction="(\w+)".* reason=(\w+)', line))
            )
            if logged and +counted == logged:
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"metrics {dict(counted)}\nlog {dict(logged)}")
            time.sleep(0.1)

    def assert_no_fault(self) -> None:
        """Nothing hit the data plane's last resort."""
        bad = [line for line in self.lines() if "internal fault" in line or "Traceback" in line]
        assert not bad, bad[0]

    def assert_nothing_left(self) -> None:
        """No connection outlives its two ends."""
        deadline = time.monotonic() + TIMEOUT
        while self.node.name in self.mesh.proxies and self.mesh.proxies[self.node.name].poll() is None:
            status, body = self.mesh.get(self.node, 15000, "/config_dump")
            assert status == 200
            pods = json.loads(body)["workloadState"].values()
            left = [c for pod in pods for direction in pod["connections"].values() for c in direction]
            if not left:
                return
            assert time.monotonic() < deadline, left
            time.sleep(0.05)

    def rss(self) -> int:
        """Bytes resident of the data plane."""
        statm = Path(f"/proc/{self.mesh.proxies[self.node.name].pid}/statm").read_text()
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Open descriptors of the data plane."""
        return len(os.listdir(f"/proc/{self.mesh.proxies[self.node.name].pid}/fd"))

    def assert_friend_served(self) -> None:
        """A neighbour's new connection through another tunnel works."""
        with closing(self.call(self.app, by=self.friend)) as sock:
            sock.sendall(b"neighbour")
            assert receive_exactly(sock, 9) == b"neighbour"


def receive_exactly(sock: socket.socket, n: int) -> bytes:
    """``n`` bytes, or fewer at the end."""
    out = bytearray()
    while len(out) < n and (part := sock.recv(n - len(out))):
        out += part
    return bytes(out)


def _read_ca(directory: Path) -> tuple[Any, Any, Any]:
    certificate = x509.load_pem_x509_certificate((directory / "ca-cert.pem").read_bytes())
    key = serialization.load_pem_private_key((directory / "ca-key.pem").read_bytes(), None)
    root = x509.load_pem_x509_certificate((directory / "root-cert.pem").read_bytes())
    return certificate, key, root


@contextmanager
def bench(directory: Path, *, vip: str = "") -> Iterator[Bench]:
    """The lab with everything running, and an echo application at :data:`ECHO_PORT` of ``app``.

    ``vip``: address of a service "web" whose port 80 is port 8081 of ``peer``.
    """

    def pod(name: str) -> PodSpec:
        return PodSpec(name, service_account=name)

    spec = LabSpec((NodeSpec("node-1", (pod("app"), pod("other"))), NodeSpec("node-2", (pod("peer"), pod("friend")))))
    with Lab.create(spec) as lab:
        mesh = Mesh(lab, directory, meshed={"app", "other", "friend"})
        mesh.overrides["peer"] = {"protocol": "HBONE"}
        mesh.overrides["app"] = {"locality": {"region": "here", "zone": "there"}}
        mesh.policies.append(json.loads(json.dumps(_DENY)))
        if vip:
            host = "web.default.svc.cluster.local"
            mesh.services.append(
                {"name": "web", "namespace": "default", "hostname": host, "vips": [f"/{vip}"], "ports": {"80": 8081}}
            )
            mesh.overrides["peer"]["services"] = {f"default/{host}": {"80": 8081}}
        with mesh:
            it = Bench(lab, mesh)
            with Listening(it.app, ECHO_PORT, echo):
                yield it
            it.assert_no_fault()
            it.assert_nothing_left()
