"""Steps about the wire: clear text without the mesh, TLS with it, and who the proxies say has talked."""

import shlex
import time
from typing import Final, cast

from ambient.demo.commands import Held
from ambient.demo.excerpt import WIDTH, fold, log_excerpt
from ambient.demo.record import Step
from ambient.demo.scene import PORT, Scene
from ambient.demo.wire import context_of, seen, segments, tls_flows
from ambient.lab import Capture
from ztunnel.identity.ca_files import create_ca

__all__ = ["check_answers", "check_said", "check_silent", "check_works", "clear_text", "identities", "meshed", "start_mesh"]

_HBONE: Final = 15008
_ID_FIELDS: Final = ("src.addr", "src.identity", "dst.addr", "dst.identity", "direction", "reason", "path")


def check_said(scene: Scene, step: Step, name: str, pod: str, said: str, *expected: str) -> None:
    """A client in ``pod`` has printed each of the lines ``expected``. If not, its node's log may know why."""
    ok = all(line in said.splitlines() for line in expected)
    node = scene.pod(pod).node.name
    seen = " | ".join(said.splitlines()) or "nothing"
    if not ok and scene.meshed and (error := scene.last_error(node)):
        seen += f"; the log's last error: {error}"
    step.check(name, ok, expected=" | ".join(expected), seen=seen, log=scene.log(node) if scene.meshed else "")


def check_works(scene: Scene, step: Step, name: str, pod: str, said: str) -> None:
    """The client got its secret word back."""
    check_said(scene, step, name, pod, said, f"server: {scene.secret}")


def check_answers(scene: Scene, step: Step, client: str, server: str) -> None:
    """``client`` says the secret to ``server`` over each family and is known by its own address."""
    for (family, address), (_, own) in zip(scene.addresses(server), scene.addresses(client), strict=True):
        said = scene.say(step, client, address)
        name = f"{family}: {server} answers, and sees {client}'s real address {own}"
        check_said(scene, step, name, client, said, f"server: you are {own}", f"server: {scene.secret}")


def check_silent(scene: Scene, step: Step, wire: Capture, what: str) -> None:
    """The secret is nowhere in a capture that missed nothing."""
    frames = [frame.data for frame in wire.frames]
    found = segments(frames)
    readable = seen(scene.secret, frames, found)
    step.check(
        f"{what}: {scene.secret} is in no packet between the nodes ({len(frames)} captured, {wire.dropped} missed)",
        not readable and wire.dropped == 0,
        expected="the word in no packet, and no packet missed by the capture",
        seen=f"{context_of(scene.secret, found) or 'the word' if readable else 'no word'}; {wire.dropped} packets missed",
        log=scene.log("node-a"),
    )


def clear_text(scene: Scene, step: Step) -> None:
    """No mesh yet."""
    step.note("running in the background:", *(scene.serve(pod).text for pod in ("orders", "cart")))
    scene.new_secret()
    with scene.sniff() as wire:
        check_answers(scene, step, "web", "orders")
    frames = [frame.data for frame in wire.frames]
    context = context_of(scene.secret, segments(frames))
    step.check(
        f'the word can be read in a packet on the wire: "{context}"',
        bool(context),
        expected=f"{scene.secret} in one of the captured packets",
        seen=f"{len(frames)} packets without it, {wire.dropped} missed",
    )


def start_mesh(scene: Scene, step: Step, *, break_ca: bool = False) -> None:
    """A node agent and a ztunnel on each node. Raises LabError when they do not get ready."""
    if break_ca:
        create_ca(scene.directory / "other-ca", "another root", time.time())
        scene.mesh.node_env["node-b"] = {"LOCAL_CA_DIR": str(scene.directory / "other-ca")}
    began = time.monotonic()
    scene.mesh.start()
    took = time.monotonic() - began
    scene.meshed = True
    first, *others = scene.lab.nodes.values()
    agent = cast("list[str]", scene.mesh.agents[first.name].args)
    settings = [f"{name}={shlex.quote(value)}" for name, value in scene.mesh.settings(first).items() if value and name != "PATH"]
    step.note(f"running on {first.name}, the node agent:", *_command([shlex.quote(word) for word in agent]))
    step.note("and the proxy:", *_command([*settings, shlex.join(scene.mesh.command)]))
    step.note(f"The same runs on {', '.join(node.name for node in others)}, with its own socket, pods and name.")
    for name in scene.lab.nodes:
        ready = scene.ready(name)
        step.check(
            f"ztunnel on {name} is ready and serves its pods (both nodes: {took:.1f} s)",
            ready,
            expected="200 from http://localhost:15021/healthz/ready",
            seen="200" if ready else "no such answer",
            log=scene.log(name),
        )


def _command(words: list[str]) -> list[str]:
    """A command over several lines, as a shell takes it."""
    lines = fold(words, indent="", width=WIDTH - 2)
    return [f"{line} \\" for line in lines[:-1]] + [lines[-1]]


def meshed(scene: Scene, step: Step) -> None:
    """The same calls again."""
    scene.new_secret()
    with scene.sniff() as wire:
        check_answers(scene, step, "web", "orders")
    check_silent(scene, step, wire, "on the wire")
    found = segments(frame.data for frame in wire.frames)
    flows, encrypted = tls_flows(found, _HBONE)
    plain = sum(PORT in segment.ports for segment in found)
    step.check(
        f"what is there instead: {encrypted} TLS connections to port {_HBONE}, nothing on port {PORT}",
        flows == encrypted > 0 == plain,
        expected=f"every connection to port {_HBONE} begins with a TLS handshake, no bytes on port {PORT}",
        seen=f"{flows} connections to port {_HBONE}, {encrypted} of them TLS; {plain} packets with content on port {PORT}",
        log=scene.log("node-a"),
    )


def identities(scene: Scene, step: Step) -> None:
    """Both nodes' logs, and the commands that look into a running proxy."""
    address = scene.pod("orders").ipv4
    marks = scene.marks()
    scene.secret = "who-is-there"
    scene.say(step, "web", address)
    sent = len(scene.secret) + 1  # no connection before has sent as many bytes: that is how its line is known
    ids = [f'src.identity="{_spiffe("web")}"', f'dst.identity="{_spiffe("orders")}"']
    for name, direction, count in (("node-a", "outbound", f" bytes_sent={sent} "), ("node-b", "inbound", f" bytes_recv={sent} ")):
        line = scene.log_line(name, marks, f'direction="{direction}"', count, *ids)
        step.note(f"access log of {name}, {scene.log(name)}:", *log_excerpt(line, _ID_FIELDS))
        step.check(
            f"{name} logs both identities ({direction})",
            bool(line),
            expected=f"a line with {' '.join(ids)}",
            seen="no such line",
            log=scene.log(name),
        )
    scene.live = scene.say_and_hold(step, "web", address)
    _check_connections(scene, step, scene.live)
    table = scene.ztunnel(step, "node-a", "certificates")
    rows = [line.split() for line in table.splitlines()]
    held = {row[0].rpartition("/")[2] for row in rows if row[1:4] == ["Leaf", "Available", "true"]}
    step.check(
        "node-a holds a valid certificate for each of its own pods, and for no other",
        held == {"web", "cart"},
        expected="leaf certificates of web and cart",
        seen=", ".join(sorted(held)) or "none",
        log=scene.log("node-a"),
    )


def _check_connections(scene: Scene, step: Step, live: Held) -> None:
    for name, words in (
        ("node-a", ("web.shop", "Outbound", "orders.shop:8080")),
        ("node-b", ("orders.shop", "Inbound", "web.shop")),
    ):
        table = scene.ztunnel(step, name, "connections")
        step.check(
            f"`ztunnel connections` on {name} shows the open connection of web to orders",
            any(all(word in line for word in (*words, "HBONE", "tunnel")) for line in table.splitlines()),
            expected=f"a line with {', '.join(words)}, HBONE, tunnel",
            seen=f"{table.strip()} (the client: {live.last})",
            log=scene.log(name),
        )


def _spiffe(account: str) -> str:
    return f"spiffe://cluster.local/ns/shop/sa/{account}"
