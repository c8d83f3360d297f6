"""Which items of a dump a command shows. Pure; an empty filter lets everything through."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from ztunnel.cli.shape import Json, at, entries, listed, mapping, word

__all__ = ["Selection"]


@dataclass(frozen=True, slots=True)
class Selection:
    """``names``: pod names, their beginnings, ``name.namespace`` or shell patterns."""

    names: tuple[str, ...] = ()
    address: str = ""
    workload_namespace: str = ""
    workload_node: str = ""
    service_namespace: str = ""
    policy_namespace: str = ""

    def workloads(self, dump: Json) -> list[Json]:
        """``workloads[]`` by name, namespace, node and address."""
        return [
            item
            for item in entries(dump.get("workloads"))
            if self._named(word(item, "name"), word(item, "namespace"))
            and self.workload_namespace in ("", word(item, "namespace"))
            and self.workload_node in ("", word(item, "node"))
            and (not self.address or self.address in listed(item.get("workloadIps")))
        ]

    def services(self, dump: Json) -> list[Json]:
        """``services[]`` by namespace and name."""
        return [
            item
            for item in entries(dump.get("services"))
            if self._named(word(item, "name"), word(item, "namespace")) and self.service_namespace in ("", word(item, "namespace"))
        ]

    def policies(self, dump: Json) -> list[Json]:
        """``policies[]`` by namespace and name."""
        return [
            item
            for item in entries(dump.get("policies"))
            if self._named(word(item, "name"), word(item, "namespace")) and self.policy_namespace in ("", word(item, "namespace"))
        ]

    def pods(self, dump: Json) -> list[Json]:
        """The values of ``workloadState`` by name and namespace."""
        chosen = []
        for value in at(dump, "workloadState").values():
            pod = mapping(value)
            info = at(pod, "info")
            if self._named(word(info, "name"), word(info, "namespace")) and self.workload_namespace in (
                "",
                word(info, "namespace"),
            ):
                chosen.append(pod)
        return chosen

    def _named(self, name: str, namespace: str) -> bool:
        full = f"{name}.{namespace}"
        return not self.names or any(
            name.startswith(wanted) or full == wanted or fnmatchcase(name, wanted) for wanted in self.names
        )
