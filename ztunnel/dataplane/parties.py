"""The two ends of a connection as telemetry names them."""

from collections.abc import Sequence

from ztunnel.link.messages import Party
from ztunnel.route.headers import Baggage
from ztunnel.state.model import Workload

__all__ = ["party_of_address", "party_of_baggage", "party_of_workload"]

_UNKNOWN = Party()


def party_of_workload(workload: Workload, *, proved: bool) -> Party:
    """A workload of our state. ``proved``: its identity is known to be true (mTLS, or its network namespace)."""
    return Party(
        workload=workload.workload_name,
        pod=workload.name,
        namespace=workload.namespace,
        canonical_service=workload.canonical_name,
        canonical_revision=workload.canonical_revision,
        principal=workload.identity if proved else "",
        app=workload.canonical_name,
        version=workload.canonical_revision,
        cluster=workload.cluster_id,
        region=workload.locality.region,
        zone=workload.locality.zone,
    )


def party_of_address(identities: Sequence[str]) -> Party:
    """Someone we know no workload for; perhaps who it must be."""
    return Party(principal=identities[0]) if identities else _UNKNOWN


def party_of_baggage(baggage: Baggage, identity: str) -> Party:
    """A peer we know no workload for, by its own word (``baggage`` header) and its proved identity, or ""."""
    return Party(
        workload=baggage.workload_name,
        pod=baggage.workload_name if baggage.workload_type == "pod" else "",
        namespace=identity.split("/")[4] if identity else baggage.namespace,
        canonical_service=baggage.service,
        canonical_revision=baggage.revision,
        principal=identity,
        app=baggage.service,
        version=baggage.revision,
        cluster=baggage.cluster,
        region=baggage.region,
        zone=baggage.zone,
    )
