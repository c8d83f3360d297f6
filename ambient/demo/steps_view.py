"""The step about looking: the tables of the ``ztunnel`` command, and metrics."""

from typing import Final

from ambient.demo.excerpt import metric_excerpt
from ambient.demo.record import Step
from ambient.demo.scene import SERVICE_VIP, Scene
from ambient.demo.steps_wire import check_works

__all__ = ["views"]

_LABELS: Final = ("reporter", "source_workload", "destination_service_name", "destination_workload", "connection_security_policy")
_MOST: Final = 4


def views(scene: Scene, step: Step) -> None:
    """Every table, and a few lines of the metrics page."""
    scene.new_secret()
    said = scene.say(step, "web", SERVICE_VIP, 80)
    check_works(scene, step, f"web reaches orders by its service's address {SERVICE_VIP}:80", "web", said)
    scene.live = scene.say_and_hold(step, "web", scene.pod("orders").ipv4)
    scene.set_policy(step, "--deny", "shop/intruder")
    table = scene.ztunnel(step, "node-a", "workloads")
    rows = [line.split() for line in table.splitlines()]
    enrolled = {row[1] for row in rows if row[0] == "shop" and row[-1] == "HBONE"}
    _check_table(scene, step, "workloads: all four pods, by HBONE", enrolled == set(scene.lab.pods), table)
    table = scene.ztunnel(step, "node-a", "services")
    _check_table(scene, step, "services: orders with its one endpoint", SERVICE_VIP in table and "1/1" in table, table)
    table = scene.ztunnel(step, "node-a", "policies")
    _check_table(scene, step, "policies: shop/deny-intruder", "deny-intruder" in table, table)
    table = scene.ztunnel(step, "node-b", "certificates")
    _check_table(scene, step, "certificates: orders and intruder", "sa/orders" in table and "sa/intruder" in table, table)
    table = scene.ztunnel(step, "node-b", "connections")
    _check_table(scene, step, "connections: web to orders, and what allowed it", "allowed by default" in table, table)
    _metrics(scene, step)


def _check_table(scene: Scene, step: Step, name: str, ok: bool, table: str) -> None:
    step.check(f"the table of {name}", ok, expected=name, seen=table.strip() or "nothing", log=scene.log("node-a"))


def _metrics(scene: Scene, step: Step) -> None:
    name = "istio_tcp_connections_opened_total"
    words = (name + "{", 'destination_service_name="orders"', 'connection_security_policy="mutual_tls"')
    counted = scene.wait_metric("node-a", *words)

    def short(text: str) -> list[str]:
        lines = text.splitlines()
        shown = [row for line in lines[:_MOST] for row in metric_excerpt(line, _LABELS)]
        return [*shown, f"… {len(lines) - _MOST} more"] if len(lines) > _MOST else shown

    scene.get(step, "node-a", "istio_tcp_connections", "web", show=short)
    step.check(
        "metrics on port 15020, with names and labels as Istio's dashboards want them",
        counted,
        expected=f"a line with {' and '.join(words)}",
        seen="no such line",
        log=scene.log("node-a"),
    )
