"""Steps about faults: the control half killed, the whole proxy killed."""

import time
from typing import Final

from ambient.demo.record import Step
from ambient.demo.scene import PORT, Scene, until
from ambient.demo.steps_wire import check_silent, check_works
from ambient.demo.wire import segments

__all__ = ["BACK_LIMIT", "control_killed", "proxy_killed"]

BACK_LIMIT: Final = 5.0
"""Seconds for a new control half to answer: it takes 0.3 to 0.7 where nothing else runs, most of it Python's start."""


def control_killed(scene: Scene, step: Step) -> None:
    """SIGKILL for the half that holds state, certificates, logs and metrics; the data plane goes on."""
    node = scene.node("node-a")
    scene.new_secret()
    live = scene.live = scene.say_and_hold(step, "web", scene.pod("orders").ipv4)
    pid = scene.mesh.control_pid(node)
    if not step.check(
        f"node-a's ztunnel has a control half, process {pid}",
        pid > 0,
        expected="a child process",
        seen="none",
        log=scene.log("node-a"),
    ):
        return
    scene.shell.run(["kill", "-KILL", str(pid)], step)
    began = time.monotonic()
    gone = until(lambda: scene.mesh.control_pid(node) != pid)
    live.say("are you there?")
    _, answer = live.wait_line("server: are you there?")
    away = not scene.ready("node-a")
    step.check(
        f"the open connection goes on{' while there is no control half' if away else ''}",
        gone and bool(answer),
        expected="server: are you there?",
        seen=live.last if gone else f"process {pid} is still there",
        log=scene.log("node-a"),
    )
    said = scene.say(step, "web", scene.pod("orders").ipv4)
    away = not scene.ready("node-a")
    check_works(
        scene,
        step,
        f"a new connection to a known destination works{' while there is no control half' if away else ''}",
        "web",
        said,
    )
    back = until(lambda: scene.ready("node-a") and scene.mesh.control_pid(node) not in (0, pid), BACK_LIMIT)
    took = time.monotonic() - began
    step.check(
        f"a new control half is at work after {took:.2f} s, process {scene.mesh.control_pid(node)}",
        back,
        expected=f"200 from http://localhost:15021/healthz/ready within {BACK_LIMIT:.0f} s",
        seen="no such answer",
        log=scene.log("node-a"),
    )


def proxy_killed(scene: Scene, step: Step) -> None:
    """SIGKILL for the data plane: pods stay captured, so nothing leaves them unencrypted."""
    node, orders = scene.node("node-a"), scene.pod("orders").ipv4
    scene.new_secret()
    pid = scene.mesh.proxies["node-a"].pid
    with scene.sniff() as wire:
        scene.shell.run(["kill", "-KILL", str(pid)], step)
        scene.mesh.stop_proxy(node, kill=True)  # reaps it
        refused = [scene.say(step, "web", address) for _, address in scene.addresses("orders")]
    for (family, _), said in zip(scene.addresses("orders"), refused, strict=True):
        step.check(
            f"{family}: web is refused at once, not let past the mesh",
            "Connection refused" in said,
            expected="Connection refused",
            seen=" | ".join(said.splitlines()) or "nothing",
            log=scene.log("node-a"),
        )
    check_silent(scene, step, wire, "no leak")
    plain = sum(PORT in segment.ports for segment in segments(frame.data for frame in wire.frames))
    step.check(
        f"not one packet with content went to port {PORT}", plain == 0, expected="0 packets", seen=f"{plain} packets",
        log=scene.log("node-a"),
    )  # fmt: skip
    began = time.monotonic()
    scene.mesh.start_proxy(node)
    scene.mesh.wait_ready(node)
    step.note(f"ztunnel on node-a is started again: ready after {time.monotonic() - began:.2f} s")
    said = scene.say(step, "web", orders)
    check_works(scene, step, "after the restart web reaches orders again", "web", said)
