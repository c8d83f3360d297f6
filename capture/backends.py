"""The three ways to put a rule set into a network namespace, behind one seam.

Called by the manager and by detection. A backend reads what is there before it writes, writes only what is ours, and each of
its operations may be repeated. They raise :class:`~capture.errors.CommandFailedError` or :class:`~capture.errors.ParseError`.

- :class:`Nftables`: tables of our own, family inet, one transaction.
- :class:`Iptables` with variant ``nft`` or ``legacy``: chains of our own in iptables' tables, a transaction a table and family.
  Legacy tables are written by python-iptables in a child; the guardrail goes by iptables-restore also there, so that a pod can be
  closed and opened when the library is what fails.
"""

from enum import StrEnum
from pathlib import Path
from typing import Protocol

from capture import legacy, parse_iptables, parse_nft, render_iptables, render_nft
from capture.command import Tools
from capture.errors import ToolMissingError
from capture.model import Family, RuleSet
from capture.netns import NetnsRef, call_in_netns
from capture.parse_iptables import FamilyState
from capture.snapshot import Snapshot

__all__ = ["Backend", "BackendName", "Iptables", "Nftables", "make_backend"]

_FAMILIES = (Family.V4, Family.V6)


class BackendName(StrEnum):
    NFTABLES = "nftables"
    IPTABLES_NFT = "iptables-nft"
    IPTABLES_LEGACY = "iptables-legacy"


class Backend(Protocol):
    """The seam. ``families`` are those that the pod's rule set is for."""

    @property
    def name(self) -> BackendName: ...

    def expected(self, rules: RuleSet) -> Snapshot:
        """What :meth:`snapshot` gives when ``rules`` are in force and the pod is open."""

    def snapshot(self, netns: NetnsRef) -> Snapshot:
        """What is there of ours, by this backend."""

    def install(self, netns: NetnsRef, rules: RuleSet) -> None:
        """Makes ours exactly ``rules``."""

    def uninstall(self, netns: NetnsRef) -> None:
        """Takes ours away; the guardrail stays."""

    def close(self, netns: NetnsRef, families: tuple[Family, ...]) -> None:
        """Puts the guardrail."""

    def open(self, netns: NetnsRef) -> None:
        """Takes the guardrail away."""


class Nftables:
    """Native nftables."""

    name = BackendName.NFTABLES

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def expected(self, rules: RuleSet) -> Snapshot:
        return parse_nft.expected_snapshot(rules)

    def snapshot(self, netns: NetnsRef) -> Snapshot:
        return self.listing(netns).snapshot

    def listing(self, netns: NetnsRef) -> parse_nft.NftListing:
        """The snapshot, and whether iptables-nft's tables hold something of ours."""
        return parse_nft.parse_listing(self._tools.run(netns, "nft", "-j", "list", "ruleset"))

    def install(self, netns: NetnsRef, rules: RuleSet) -> None:
        self._transact(netns, render_nft.render(rules))

    def uninstall(self, netns: NetnsRef) -> None:
        self._transact(netns, render_nft.remove_transaction(*render_nft.TABLES))

    def close(self, netns: NetnsRef, families: tuple[Family, ...]) -> None:
        self._transact(netns, render_nft.render_guard())

    def open(self, netns: NetnsRef) -> None:
        self._transact(netns, render_nft.remove_transaction(render_nft.GUARD_TABLE))

    def _transact(self, netns: NetnsRef, text: str) -> None:
        self._tools.run(netns, "nft", "-f", "-", data=text.encode())


class Iptables:
    """iptables, over nf_tables (``nft``) or over the old tables (``legacy``)."""

    def __init__(self, tools: Tools, variant: str) -> None:
        self._tools = tools
        self._variant = variant
        self._library = variant == "legacy"
        self.name = BackendName(f"iptables-{variant}")

    def expected(self, rules: RuleSet) -> Snapshot:
        return parse_iptables.expected_snapshot(rules)

    def snapshot(self, netns: NetnsRef) -> Snapshot:
        return parse_iptables.snapshot_of(self._states(netns))

    def install(self, netns: NetnsRef, rules: RuleSet) -> None:
        states = self._states(netns)
        if self._library:
            jobs = [
                legacy.install_job(rules, state) if state.family in rules.families else legacy.remove_job(state) for state in states
            ]
            legacy.run_jobs(self._tools, netns, jobs)
            return
        for state in states:
            if state.family in rules.families:
                self._restore(netns, state.family, render_iptables.render(rules, state))
            else:
                self._restore(netns, state.family, render_iptables.render_remove(state))

    def uninstall(self, netns: NetnsRef) -> None:
        states = self._states(netns)
        if self._library:
            legacy.run_jobs(self._tools, netns, [legacy.remove_job(state) for state in states])
            return
        for state in states:
            self._restore(netns, state.family, render_iptables.render_remove(state))

    def close(self, netns: NetnsRef, families: tuple[Family, ...]) -> None:
        for state in self._states(netns):
            if state.family in families:
                self._restore(netns, state.family, render_iptables.render_guard(state))

    def open(self, netns: NetnsRef) -> None:
        for state in self._states(netns):
            self._restore(netns, state.family, render_iptables.render_unguard(state))

    def rule_count(self, netns: NetnsRef) -> int:
        """How many rules there are by this backend, anybody's: which variant a machine uses already."""
        return sum(state.rules for state in self._states(netns))

    def _restore(self, netns: NetnsRef, family: Family, text: str) -> None:
        if text:
            # -w: legacy waits for the lock, nft has none and takes the option for compatibility.
            self._tools.run(netns, self._tool(family, "restore"), "--noflush", "-w", data=text.encode())

    def _states(self, netns: NetnsRef) -> tuple[FamilyState, ...]:
        return tuple(self._state(netns, family) for family in _FAMILIES)

    def _state(self, netns: NetnsRef, family: Family) -> FamilyState:
        if self._variant == "legacy" and not _legacy_tables(netns, family):
            return FamilyState(family, {})
        try:
            tool = self._tool(family, "save")
        except ToolMissingError:
            if family is Family.V4:
                raise
            return FamilyState(family, {})
        return parse_iptables.parse_save(self._tools.run(netns, tool), family)

    def _tool(self, family: Family, verb: str) -> str:
        """The tool's name: some distributions have only the plain one, which says what it is made for."""
        stem = "iptables" if family is Family.V4 else "ip6tables"
        full, plain = f"{stem}-{self._variant}-{verb}", f"{stem}-{verb}"
        if self._tools.find(full) is None and self._tools.find(plain) is not None:
            version = self._tools.run("/proc/thread-self/ns/net", plain, "--version").decode("utf-8", "replace")
            if ("nf_tables" in version) == (self._variant == "nft"):
                return plain
        if self._tools.find(full) is None:
            raise ToolMissingError(f"{full} is not installed; install the package iptables")
        return full


def make_backend(name: BackendName, tools: Tools) -> Backend:
    """The backend of a name."""
    if name is BackendName.NFTABLES:
        return Nftables(tools)
    return Iptables(tools, "nft" if name is BackendName.IPTABLES_NFT else "legacy")


def _legacy_tables(netns: NetnsRef, family: Family) -> bool:
    """Any legacy table exists in the netns. Asked first, because merely listing a legacy table makes it and its hooks."""
    file = Path("/proc/thread-self/net/ip_tables_names" if family is Family.V4 else "/proc/thread-self/net/ip6_tables_names")

    def read() -> bool:
        try:
            return bool(file.read_text().strip())
        except FileNotFoundError:
            return False

    return call_in_netns(netns, read)
