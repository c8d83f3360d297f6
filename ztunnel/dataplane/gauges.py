"""Sizes of the data plane, told once a second; exposed as ``ambient_dataplane_<name>``."""

import resource
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ztunnel.dataplane.world import World

__all__ = ["gauges"]


def gauges(world: "World") -> dict[str, float]:
    """Name -> value; names are part of the metrics' contract."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "connections_open": float(len(world.registry.conns)),
        "sockets_open_source": float(sum(c.direction == "outbound" for c in world.registry.conns)),
        "sockets_open_destination": float(sum(c.direction == "inbound" for c in world.registry.conns)),
        "tunnels_open": float(len(world.tunnels)),
        "workloads_proxied": float(len(world.proxies)),
        "watched_descriptors": float(world.loop.watched),
        "held_bytes": float(sum(p.held for p in world.proxies.values())),
        "records_waiting": float(world.registry.pending),
        "series_overflow_total": float(world.registry.overflowed),
        "batches_total": float(world.loop.batches),
        "events_total": float(world.loop.events),
        "internal_faults_total": float(world.faults),
        "cpu_seconds_total": usage.ru_utime + usage.ru_stime,
        "max_resident_bytes": usage.ru_maxrss * 1024.0,
        "state_generation": float(world.state.generation),
        "draining": float(world.draining),
    }
