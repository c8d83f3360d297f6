"""What ``config_dump`` shows of state and configuration."""

import dataclasses

import msgspec

from policy.static_form import to_static
from ztunnel.config import Config
from ztunnel.state.dump import service_dump, workload_dump
from ztunnel.state.static import StaticState
from ztunnel.state.store import State

__all__ = ["config_view", "policy_dumps", "service_dumps", "workload_dumps"]

Json = dict[str, object]
_SECRET = frozenset({"auth_token", "xds_headers", "ca_headers"})


def workload_dumps(state: StaticState) -> list[Json]:
    """``workloads[]``."""
    return [dict(workload_dump(w)) for w in state.workloads]


def service_dumps(state: StaticState, store: State) -> list[Json]:
    """``services[]`` with their endpoints."""
    return [dict(service_dump(s, store.endpoints(s.key))) for s in state.services]


def policy_dumps(state: StaticState) -> list[Json]:
    """``policies[]``."""
    return [dict(to_static(p)) for p in state.policies]


def config_view(config: Config) -> Json:
    """The configuration, camelCase, without what could be secret."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in _SECRET}
    builtins: Json = msgspec.to_builtins({_camel(name): value for name, value in values.items()})
    return builtins


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)
