"""Steps about policy: a client refused, a live connection cut, and the same within one node."""

from typing import Final

from ambient.demo.excerpt import log_excerpt, metric_excerpt
from ambient.demo.record import Step
from ambient.demo.scene import Scene
from ambient.demo.steps_wire import check_answers, check_silent, check_works

__all__ = ["CUT_LIMIT_MS", "cut", "refused", "same_node"]

CUT_LIMIT_MS: Final = 2_000
"""From the file's change to the client's reset: 10 to 110 ms where nothing else runs, as the file is looked at every 100 ms."""
_RESET: Final = "Connection reset by peer"
_FIELDS: Final = ("src.workload", "dst.workload", "direction", "error", "reason", "policy", "path")
_LABELS: Final = ("reporter", "source_principal", "destination_workload", "response_flags")


def _check_reset(scene: Scene, step: Step, client: str, server: str, said: str) -> None:
    step.check(
        f"{client} gets a reset: no byte of its own came through to {server}",
        _RESET in said and "server:" not in said,
        expected=_RESET,
        seen=" | ".join(said.splitlines()) or "nothing",
        log=scene.log(scene.pod(client).node.name),
    )


def _check_log(scene: Scene, step: Step, node: str, marks: dict[str, int], name: str, *needles: str) -> None:
    line = scene.log_line(node, marks, *needles)
    step.note(f"access log of {node}:", *log_excerpt(line, _FIELDS))
    step.check(name, bool(line), expected=f"a line with {' and '.join(needles)}", seen="no such line", log=scene.log(node))


def refused(scene: Scene, step: Step) -> None:
    """A DENY policy for one identity: what the client, its node, the server's node and the metrics say."""
    scene.set_policy(step, "--deny", "shop/intruder")
    scene.new_secret()
    marks = scene.marks()
    cart = scene.pod("cart").ipv4
    said = scene.say(step, "intruder", cart)
    _check_reset(scene, step, "intruder", "cart", said)
    _check_log(
        scene, step, "node-b", marks, "the client's node knows the answer, the reason and the policy",
        'direction="outbound"', "http status: 401", "policy_denied", "shop/deny-intruder",
    )  # fmt: skip
    _check_log(
        scene, step, "node-a", marks, "the server's node names the policy and its rule",
        'direction="inbound"', "explicitly denied by: shop/deny-intruder (rule 0)", "reason=policy_denied",
    )  # fmt: skip
    words = ("istio_tcp_connections_closed_total", 'source_workload="intruder"', 'response_flags="DENY"')
    counted = scene.wait_metric("node-a", *words)
    scene.get(
        step,
        "node-a",
        "connections_closed",
        "intruder",
        "DENY",
        show=lambda text: [row for line in text.splitlines() for row in metric_excerpt(line, _LABELS)],
    )
    step.check(
        'the metric counts it with response_flags="DENY"',
        counted,
        expected=f"a line with {' and '.join(words)}",
        seen="no such line",
        log=scene.log("node-a"),
    )
    said = scene.say(step, "orders", cart)
    check_works(scene, step, "orders, of the same node as intruder, still reaches cart", "orders", said)


def cut(scene: Scene, step: Step) -> None:
    """The live connection of the step before loses its permission."""
    live = scene.live
    assert live is not None, "the step that opens it comes first"
    live.say("still there?")
    _, answer = live.wait_line("server: still there?")
    step.check(
        "the connection that was opened before is alive", bool(answer), expected="server: still there?", seen=live.last,
        log=scene.log("node-a"),
    )  # fmt: skip
    marks = scene.marks()
    written = scene.set_policy(step, "--deny", "shop/web")
    at, line = live.wait_line("failed after")
    took = round(1000 * (at - written)) if at else -1
    step.note(f"the client, which kept the connection open: {live.text}", line or live.last)
    step.check(
        f"it is cut by a reset {took} ms after the policy was written"
        if at
        else "it is cut by a reset after the policy was written",
        _RESET in line and took <= CUT_LIMIT_MS,
        expected=f"{_RESET}, within {CUT_LIMIT_MS} ms",
        seen=f"{line or live.last} ({took} ms)",
        log=scene.log("node-b"),
    )
    _check_log(
        scene, step, "node-b", marks, "the server's node says why",
        'direction="inbound"', "reason=policy_changed", "shop/deny-web (rule 0)",
    )  # fmt: skip
    scene.set_policy(step, "--none")
    said = scene.say(step, "web", scene.pod("orders").ipv4)
    check_works(scene, step, "without the policy web reaches orders again", "web", said)


def same_node(scene: Scene, step: Step) -> None:
    """web and cart share node-a: no tunnel is needed, policy is."""
    scene.new_secret()
    marks = scene.marks()
    with scene.sniff() as wire:
        check_answers(scene, step, "web", "cart")
    check_silent(scene, step, wire, "on the wire")
    _check_log(
        scene, step, "node-a", marks, "the log tells the way: path=same_node",
        'src.workload="web"', 'dst.workload="cart"', "path=same_node",
    )  # fmt: skip
    scene.set_policy(step, "--allow-only", "shop/orders")
    marks = scene.marks()
    said = scene.say(step, "web", scene.pod("cart").ipv4)
    _check_reset(scene, step, "web", "cart", said)
    _check_log(
        scene, step, "node-a", marks, "the log says that no policy allows it",
        'src.workload="web"', 'direction="inbound"', "allow policies exist, but none allowed", "path=same_node",
    )  # fmt: skip
    scene.set_policy(step, "--none")
