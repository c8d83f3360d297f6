"""Istio's static state file (LOCAL_XDS, LOCAL_XDS_PATH): YAML in, validated workloads, services and policies out.

All or nothing: any fault refuses the whole file with every problem's line, path and cause (up to 20), and the caller keeps what it
has. Called by the control half when the file changes. Pure: the text is given.

Where Istio's own reader leaves a field empty, the value is the one its control plane would send: an absent or empty
``trustDomain`` is ``cluster.local``, ``serviceAccount`` ``default``, ``clusterId`` ``Kubernetes``, ``workloadType`` ``pod``. An
empty ``uid`` is refused: two workloads without one would be the same. ``endpoints`` of a service are added to the ``services`` of
their workloads.
"""

from typing import Final

import msgspec

from policy.model import Authorization
from ztunnel.state.errors import Problem, StaticFileError
from ztunnel.state.fields import Faults, Fields, TooManyFaultsError
from ztunnel.state.model import NetworkMode, Service, Workload
from ztunnel.state.static_policy import read_policy
from ztunnel.state.static_service import Endpoint, read_service
from ztunnel.state.static_workload import read_workload
from ztunnel.state.yaml_nodes import YamlTextError, parse_yaml

__all__ = ["MAX_BYTES", "StaticState", "read_static"]

MAX_BYTES: Final = 16 * 1024 * 1024
"""Bytes of a static file: tens of thousands of workloads."""

_TOP: Final = frozenset({"workloads", "services", "policies"})


class StaticState(msgspec.Struct, frozen=True):
    """All of one file, in its order; uids, keys and (network, address) pairs are unique."""

    workloads: tuple[Workload, ...] = ()
    services: tuple[Service, ...] = ()
    policies: tuple[Authorization, ...] = ()


def read_static(text: str, source: str) -> StaticState:
    """The state that ``text`` describes. ``source`` names the file in messages. Raises StaticFileError, and nothing else."""
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise StaticFileError(source, (Problem(1, "", f"larger than {MAX_BYTES} bytes; use a control plane for so much state"),))
    faults = Faults()
    try:
        state = _read(faults, text)
    except YamlTextError as error:
        raise StaticFileError(source, (Problem(error.line, "", error.cause),)) from None
    except TooManyFaultsError:
        raise StaticFileError(source, tuple(faults.problems)) from None
    if faults.problems:
        raise StaticFileError(source, tuple(faults.problems))
    return state


def _read(faults: Faults, text: str) -> StaticState:
    top = Fields(faults, parse_yaml(text), "", _TOP)
    workloads = _read_workloads(faults, top)
    services: dict[str, Service] = {}
    lines: dict[str, int] = {}
    endpoints: list[Endpoint] = []
    for node, path in top.items("services"):
        service, its_endpoints = read_service(faults, node, path)
        if service.key in lines:
            cause = f"service {service.key!r} is already described on line {lines[service.key]}"
            faults.add(node.line, path, cause)
            continue
        lines[service.key] = node.line
        services[service.key] = service
        endpoints.extend(its_endpoints)
    _join_endpoints(faults, workloads, endpoints)
    return StaticState(tuple(workloads.values()), tuple(services.values()), _read_policies(faults, top))


def _read_workloads(faults: Faults, top: Fields) -> dict[str, Workload]:
    workloads: dict[str, Workload] = {}
    lines: dict[str, int] = {}
    owners: dict[tuple[str, str], str] = {}
    for node, path in top.items("workloads"):
        workload = read_workload(faults, node, path)
        if not workload.uid:
            continue  # already a fault
        if workload.uid in lines:
            faults.add(
                node.line, f"{path}.uid", f"uid {workload.uid!r} is already that of the workload on line {lines[workload.uid]}"
            )
            continue
        lines[workload.uid] = node.line
        workloads[workload.uid] = workload
        if workload.network_mode is NetworkMode.HOST_NETWORK:
            continue
        for ip in workload.addresses:
            owner = owners.setdefault((workload.network, ip), workload.uid)
            if owner != workload.uid:
                network = f" of network {workload.network!r}" if workload.network else ""
                cause = (
                    f"address {ip}{network} is already that of {owner!r} on line {lines[owner]}; "
                    "give one of them another, or networkMode HostNetwork if they share their node's"
                )
                faults.add(node.line, f"{path}.workloadIps", cause)
    return workloads


def _read_policies(faults: Faults, top: Fields) -> tuple[Authorization, ...]:
    policies: dict[str, Authorization] = {}
    lines: dict[str, int] = {}
    for node, path in top.items("policies"):
        policy = read_policy(faults, node, path)
        if policy is None:
            continue
        if policy.key in lines:
            faults.add(node.line, path, f"policy {policy.key!r} is already described on line {lines[policy.key]}")
            continue
        lines[policy.key] = node.line
        policies[policy.key] = policy
    return tuple(policies.values())


def _join_endpoints(faults: Faults, workloads: dict[str, Workload], endpoints: list[Endpoint]) -> None:
    for endpoint in endpoints:
        workload = workloads.get(endpoint.uid)
        if workload is None:
            faults.add(endpoint.line, endpoint.path, f"no workload has the uid {endpoint.uid!r}")
            continue
        known = workload.services.get(endpoint.service)
        if known is None:
            services = {**workload.services, endpoint.service: endpoint.ports}
            workloads[endpoint.uid] = msgspec.structs.replace(workload, services=services)
        elif known != endpoint.ports:
            faults.add(endpoint.line, endpoint.path, f"the workload's own `services` give other ports for {endpoint.service!r}")
        if endpoint.status is not workload.status:
            cause = f"the workload is {workload.status.value}, so its endpoint is: set the workload's `status`"
            faults.add(endpoint.line, endpoint.path, cause)
