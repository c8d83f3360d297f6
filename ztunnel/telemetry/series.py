"""The label set of connection metrics, exactly ztunnel's: names, order, ``unknown`` for what is missing.

Pure; called once for each series, so that a scrape only joins ready bytes. ``response_flags`` stands in the middle of
the set and differs between samples of one series, hence the two halves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ztunnel.link.messages import Party, SeriesDef
from ztunnel.telemetry.exposition import labels

__all__ = ["OVERFLOW", "UNKNOWN", "LabelSet", "ServiceName", "guess_service_name", "label_set"]

UNKNOWN: Final = "unknown"
"""What ztunnel writes for a label it has no value for."""
OVERFLOW: Final = Party(workload="overflow")
"""Both ends of the series that takes what is beyond the limit of label sets."""

ServiceName = Callable[[str], str]
"""``namespace/hostname`` -> the service's name; "" if it is not known."""


@dataclass(frozen=True, slots=True)
class LabelSet:
    """The labels before and after ``response_flags``; equal sets are one series."""

    head: str
    tail: str

    def with_flag(self, flag: str) -> bytes:
        """All labels in braces and the blank before the value. ``flag``: see :func:`ztunnel.reasons.flag_of`."""
        return f'{{{self.head},response_flags="{flag}",{self.tail}}} '.encode()


def guess_service_name(service: str) -> str:
    """Name of a Kubernetes service (first label of ``name.namespace.…``), else the hostname itself."""
    namespace, _, hostname = service.partition("/")
    name, _, rest = hostname.partition(".")
    return name if rest.split(".", 1)[0] == namespace and namespace else hostname


def label_set(series: SeriesDef, service_name: ServiceName = guess_service_name) -> LabelSet:
    """The label set of ``series``. Region and zone are left out when neither end is known."""
    source, destination = series.source, series.destination
    namespace, _, hostname = series.service.partition("/")
    name = (service_name(series.service) or guess_service_name(series.service)) if series.service else ""
    head = [
        ("reporter", series.reporter),
        *_party("source", source),
        ("destination_service", hostname),
        ("destination_service_namespace", namespace if hostname else ""),
        ("destination_service_name", name),
        *_party("destination", destination),
        ("request_protocol", "tcp"),
    ]
    tail = [("connection_security_policy", series.security)]
    if _known(source) or _known(destination):
        tail += [
            ("source_region", source.region),
            ("source_zone", source.zone),
            ("destination_region", destination.region),
            ("destination_zone", destination.zone),
        ]
    return LabelSet(_text(head), _text(tail))


def _party(side: str, party: Party) -> list[tuple[str, str]]:
    return [
        (f"{side}_workload", party.workload),
        (f"{side}_canonical_service", party.canonical_service),
        (f"{side}_canonical_revision", party.canonical_revision),
        (f"{side}_workload_namespace", party.namespace),
        (f"{side}_principal", party.principal),
        (f"{side}_app", party.app),
        (f"{side}_version", party.version),
        (f"{side}_cluster", party.cluster),
    ]


def _known(party: Party) -> bool:
    return bool(party.workload or party.pod or party.canonical_service)


def _text(pairs: list[tuple[str, str]]) -> str:
    return labels((name, value or UNKNOWN) for name, value in pairs)
