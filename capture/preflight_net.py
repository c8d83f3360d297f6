"""Preflight checks that try things: sockets, routing and packet filters, each in a scratch network namespace.

Called by capture.preflight. Without the right to make a network namespace nothing is tried, and each finding says so.
"""

import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from capture import constants as c
from capture.backends import BackendName, make_backend
from capture.command import Tools
from capture.detect import Candidate, probe
from capture.errors import CaptureError, NetnsError
from capture.finding import Finding, Status, ok
from capture.model import (
    Accept,
    Chain,
    Family,
    Hook,
    Mark,
    MarkOf,
    Port,
    Protocol,
    Redirect,
    RestoreMark,
    Rule,
    RuleSet,
    SetConnmark,
    Side,
    Table,
    TableName,
    Zone,
)
from capture.netns import call_in_netns, scratch_netns
from capture.routing import apply_routing, verify_routing
from capture.rules import CaptureConfig, pod_rules

__all__ = ["BACKENDS", "NetChecks"]

BACKENDS: Final = tuple(BackendName)

_IP_TRANSPARENT: Final = 19  # linux/in.h
_IPV6_TRANSPARENT: Final = 75  # linux/in6.h
_SO_ORIGINAL_DST: Final = 80  # linux/netfilter_ipv4.h, and the same number for IPv6
_TRIED_PORT: Final = 9

_TOOLS: Final = {
    BackendName.NFTABLES: (("nft",), "nftables"),
    BackendName.IPTABLES_NFT: (("iptables-nft-restore", "ip6tables-nft-restore", "iptables-nft-save"), "iptables"),
    BackendName.IPTABLES_LEGACY: (("iptables-legacy-restore", "ip6tables-legacy-restore", "iptables-legacy-save"), "iptables"),
}
_MODULES: Final = {
    BackendName.NFTABLES: "nf_tables, nft_redir, nft_ct, nft_chain_nat",
    BackendName.IPTABLES_NFT: "nf_tables, nft_compat, xt_REDIRECT, xt_mark, xt_connmark, xt_CT",
    BackendName.IPTABLES_LEGACY: "iptable_nat, iptable_mangle, iptable_raw, their ip6table twins; xt_REDIRECT, xt_mark, xt_CT",
}
_FILTER_WHY: Final = (
    "one backend is needed to redirect pods' traffic; with several, the first of nftables, iptables-nft, iptables-legacy is taken"
)


class NetChecks:
    """The checks, sharing one answer to whether anything can be tried."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._candidates: dict[BackendName, Candidate] = {}
        self._blocked = ""
        # A kernel without IPv6 has none to capture: that is no fault of a backend.
        self._ipv6 = Path("/proc/sys/net/ipv6").exists()
        try:
            with scratch_netns():
                pass
        except NetnsError as error:
            self._blocked = str(error)

    def namespaces(self) -> Finding:
        """unshare and setns."""
        why = "rules and listeners are put into the network namespace of each pod"
        if self._blocked:
            status = Status.FAIL if os.geteuid() == 0 else Status.WARN
            return Finding(status, self._blocked, why, "run as root with CAP_SYS_ADMIN; the kernel needs CONFIG_NET_NS")
        with scratch_netns() as netns:
            names = call_in_netns(netns, lambda: [name for _, name in socket.if_nameindex()])
        return ok(f"one was made and entered (interfaces: {', '.join(names)})", why)

    def transparent(self) -> Finding:
        why = "applications see the client's address, and their answers come back to the proxy"
        return self._tried(why, "CAP_NET_ADMIN or CAP_NET_RAW is needed", _set_transparent)

    def mark(self) -> Finding:
        why = "the proxy's own connections are told from the pod's by a mark (0x539) and not captured again"
        return self._tried(why, "CAP_NET_ADMIN is needed", _set_mark)

    def ipv6(self) -> Finding:
        """Whether a new netns has IPv6 on lo: what a new pod will have."""
        why = "IPv6 traffic of pods is captured only where the kernel has IPv6"
        if untried := self._untried(why):
            return untried

        def read() -> str:
            try:
                return Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").read_text().strip()
            except OSError:
                return "absent"

        with scratch_netns() as netns:
            value = call_in_netns(netns, read)
        if value == "0":
            return ok("on", why)
        found = "the kernel has none (ipv6.disable=1?)" if value == "absent" else "switched off for new network namespaces"
        return Finding(
            Status.WARN, found, why, "fine where pods have IPv4 only; otherwise switch it on (net.ipv6.conf.*.disable_ipv6=0)"
        )

    def routing(self) -> Finding:
        why = "answers to the proxy's transparent connections are routed to it by their mark"
        if untried := self._untried(why):
            return untried
        rules = pod_rules(CaptureConfig(ipv6=self._ipv6))
        try:
            with scratch_netns() as netns:
                call_in_netns(netns, _loopback_up)
                apply_routing(netns, rules)
                drift = verify_routing(netns, rules)
        except (CaptureError, ImportError, OSError) as error:
            return Finding(
                Status.FAIL, str(error), why, "the kernel needs CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES"
            )
        if drift:
            return Finding(Status.FAIL, "; ".join(drift.sentences()), why, "the kernel needs CONFIG_IP_MULTIPLE_TABLES")
        return ok(f"rule {c.RULE_PRIORITY} and table {c.ROUTE_TABLE} work", why)

    def backend(self, name: BackendName) -> Finding:
        """One backend, with what is missing of it."""
        if untried := self._untried(_FILTER_WHY):
            return untried
        needed, package = _TOOLS[name]
        candidate = self._candidate(name)
        if candidate.usable:
            families = "IPv4 and IPv6" if self._ipv6 else "IPv4"
            return ok(f"REDIRECT, CONNMARK, mark, CT zone work for {families}", _FILTER_WHY)
        absent = [tool for tool in needed if self._tools.find(tool) is None]
        if absent:
            return Finding(Status.WARN, f"not installed: {', '.join(absent)}", _FILTER_WHY, f"apt-get install {package}")
        missing = ", ".join(_missing_features(name, self._tools)) or "nothing by itself"
        found = f"does not work ({missing} missing): {candidate.reason}"
        return Finding(Status.WARN, found, _FILTER_WHY, f"load or build the kernel modules {_MODULES[name]}")

    def any_backend(self) -> Finding:
        """The verdict over the three."""
        why = "without redirection no traffic is in the mesh"
        if untried := self._untried(why):
            return untried
        usable = [name for name in BACKENDS if self._candidate(name).usable]
        if usable:
            return ok(f"usable: {', '.join(usable)}", why)
        return Finding(Status.FAIL, "none works", why, "apt-get install nftables iptables; see the three items above")

    def original_destination(self) -> Finding:
        why = "the proxy learns where a captured connection was going"
        if untried := self._untried(why):
            return untried
        name = next((name for name in BACKENDS if self._candidate(name).usable), None)
        if name is None:
            return Finding(Status.FAIL, "cannot be tried without a working backend", why, "make one of the backends work")
        families = (Family.V4,) if self.ipv6().status is not Status.OK else (Family.V4, Family.V6)
        try:
            with scratch_netns() as netns:
                call_in_netns(netns, _loopback_up)
                match = (Protocol("tcp"), Port(Side.DESTINATION, _TRIED_PORT))
                make_backend(name, self._tools).install(
                    netns, _single(TableName.NAT, "nat", Rule(match, Redirect(c.PORT_OUTBOUND)))
                )
                for family in families:
                    call_in_netns(netns, partial(_redirected, family))
        except (CaptureError, OSError) as error:
            return Finding(Status.FAIL, f"a redirected connection ({name}): {error}", why, "the kernel needs CONFIG_NF_CONNTRACK")
        tried = " and ".join(f"IPv{family.value}" for family in families)
        return ok(f"a redirected connection tells its destination ({tried}, {name})", why)

    def _candidate(self, name: BackendName) -> Candidate:
        if name not in self._candidates:
            self._candidates[name] = probe(name, self._tools, ipv6=self._ipv6)
        return self._candidates[name]

    def _untried(self, why: str) -> Finding | None:
        return Finding(Status.WARN, "not tried: needs root", why, "run as root (sudo ambient check)") if self._blocked else None

    def _tried(self, why: str, remedy: str, attempt: Callable[[], None]) -> Finding:
        if untried := self._untried(why):
            return untried
        try:
            with scratch_netns() as netns:
                call_in_netns(netns, attempt)
        except OSError as error:
            return Finding(Status.FAIL, f"refused: {error.strerror}", why, remedy)
        return ok("works", why)


def _missing_features(name: BackendName, tools: Tools) -> list[str]:
    """The single features that fail, by family; asked only when the whole set failed."""
    features = {
        "REDIRECT": (TableName.NAT, "nat", Rule((Protocol("tcp"),), Redirect(c.PORT_OUTBOUND))),
        "mark": (TableName.MANGLE, "route", Rule((Mark(MarkOf.PACKET, c.PROXY_MARK),), Accept())),
        "CONNMARK": (TableName.MANGLE, "route", Rule((), SetConnmark(c.LOOP_MARK))),
        "connmark": (TableName.MANGLE, "route", Rule((Mark(MarkOf.CONNECTION, c.LOOP_MARK),), RestoreMark())),
        "CT zone": (TableName.RAW, "filter", Rule((), Zone(c.DNS_ZONE))),
    }
    missing = []
    for label, (table, kind, rule) in features.items():
        for family in (Family.V4, Family.V6):
            try:
                with scratch_netns() as netns:
                    make_backend(name, tools).install(netns, _single(table, kind, rule, family))
            except CaptureError:
                missing.append(f"{label} IPv{family.value}")
    return missing


def _single(table: TableName, kind: str, rule: Rule, family: Family | None = None) -> RuleSet:
    priority = {TableName.NAT: -100, TableName.MANGLE: -150, TableName.RAW: -300}[table]
    families = (Family.V4, Family.V6) if family is None else (family,)
    placed = rule if family is None else Rule(rule.matches, rule.target, family)
    return RuleSet(families, (Table(table, (Chain(Hook.OUTPUT, kind, priority, (placed,)),)),), (), ())


def _set_transparent() -> None:
    with socket.socket(socket.AF_INET) as made:
        made.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    if socket.has_ipv6 and Path("/proc/sys/net/ipv6").exists():
        with socket.socket(socket.AF_INET6) as made:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)


def _set_mark() -> None:
    with socket.socket(socket.AF_INET) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, c.PROXY_MARK)


def _loopback_up() -> None:
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        ip.link("set", index=socket.if_nametoindex("lo"), state="up")


def _redirected(family: Family) -> None:
    """Connects to a port that is redirected and asks the accepted socket for the port. Raises OSError when it is another."""
    address, kind, level, size = {
        Family.V4: (c.LOOPBACK_V4, socket.AF_INET, socket.IPPROTO_IP, 16),
        Family.V6: (c.LOOPBACK_V6, socket.AF_INET6, socket.IPPROTO_IPV6, 28),
    }[family]
    with socket.create_server((address, c.PORT_OUTBOUND), family=kind) as listener, socket.socket(kind) as client:
        listener.settimeout(2)
        client.settimeout(2)
        client.connect((address, _TRIED_PORT))
        accepted, _ = listener.accept()
        with accepted:
            (port,) = struct.unpack_from(">H", accepted.getsockopt(level, _SO_ORIGINAL_DST, size), 2)
        if port != _TRIED_PORT:
            raise OSError(f"IPv{family.value}: the original destination is told as port {port}, not {_TRIED_PORT}")
