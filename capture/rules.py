"""The in-pod rule set as data, and how it follows from a :class:`CaptureConfig`.

Pure. ``pod_rules`` is called by the manager, the renderers turn its result into the language of a backend and the
parsers turn what a backend lists back into :class:`Rule`, so that both can be compared in one form. The rules are
Istio ambient's (istio-cni, tools/istio-iptables and its nftables twin), in evaluation order.

How it works: the proxy's sockets live in the pod's network namespace. New outbound connections are redirected to
15001, inbound ones to 15006; 15008 is reached as it is. The proxy's own sockets carry PROXY_MARK and are exempt. Towards
the application the proxy binds the client's address; the application's answers would leave by the default route, so
the first packet leaves LOOP_MARK on the connection, the answers get it as packet mark, and policy routing sends them to lo.
"""

import ipaddress
from dataclasses import dataclass
from typing import Final

from capture import constants as c
from capture.errors import ConfigError
from capture.model import (
    Accept,
    Address,
    Chain,
    Family,
    Hook,
    Interface,
    LocalRoute,
    Mark,
    MarkOf,
    PolicyRule,
    Port,
    Protocol,
    Redirect,
    RestoreMark,
    Return,
    Rule,
    RuleSet,
    SetConnmark,
    Side,
    Table,
    TableName,
    Zone,
)

__all__ = ["CaptureConfig", "pod_rules"]


@dataclass(frozen=True, slots=True)
class CaptureConfig:
    """What may differ from pod to pod.

    ``dns_capture``: DNS goes to the proxy too. ``ingress``: plain inbound connections go to the application itself
    (annotation ``ambient.istio.io/bypass-inbound-capture``). ``virtual_interfaces``: TCP that arrives by these is
    treated as outbound (annotation ``istio.io/reroute-virtual-interfaces``), at most 16. ``ipv6`` False leaves IPv6
    uncaptured: only for machines where IPv6 is off.

    Raises :class:`ConfigError` for a name that is no interface name or an address of the wrong family.
    """

    dns_capture: bool = False
    ingress: bool = False
    virtual_interfaces: tuple[str, ...] = ()
    ipv6: bool = True
    probe_ipv4: str = c.PROBE_IPV4
    probe_ipv6: str = c.PROBE_IPV6

    def __post_init__(self) -> None:
        if len(self.virtual_interfaces) > _MAX_INTERFACES or len(set(self.virtual_interfaces)) != len(self.virtual_interfaces):
            raise ConfigError(f"virtual_interfaces: at most {_MAX_INTERFACES} different names, got {self.virtual_interfaces!r}")
        for name in self.virtual_interfaces:
            # Names reach rule text of three languages: letters that have a meaning in one of them are refused, also where
            # the kernel would take them ("+" and "*" are wildcards, quotes and spaces end a word).
            if not (0 < len(name) < 16 and name not in (".", "..") and set(name) <= _INTERFACE_LETTERS):
                raise ConfigError(f"virtual_interfaces: {name!r} is no interface name (1 to 15 of A-Z a-z 0-9 . _ - : @)")
        for field, text, kind in (
            ("probe_ipv4", self.probe_ipv4, ipaddress.IPv4Address),
            ("probe_ipv6", self.probe_ipv6, ipaddress.IPv6Address),
        ):
            try:
                canonical = str(kind(text))
            except ValueError as error:
                raise ConfigError(f"{field}: {error}") from None
            if canonical != text:
                raise ConfigError(f"{field}: write {text!r} as {canonical!r}")


_MAX_INTERFACES: Final = 16
_INTERFACE_LETTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:@")

_TCP: Final = Protocol("tcp")
_UDP: Final = Protocol("udp")
_OWN: Final = Mark(MarkOf.PACKET, c.PROXY_MARK)
_NOT_OWN: Final = Mark(MarkOf.PACKET, c.PROXY_MARK, negate=True)
_LO: Final = Interface(Side.DESTINATION, "lo")
_NOT_LO: Final = Interface(Side.DESTINATION, "lo", negate=True)


def pod_rules(config: CaptureConfig) -> RuleSet:
    """The whole rule set for one pod. Total: every valid configuration has one."""
    families = (Family.V4, Family.V6) if config.ipv6 else (Family.V4,)
    tables = [Table(TableName.MANGLE, _mangle()), Table(TableName.NAT, _nat(config, families))]
    if config.dns_capture:
        tables.insert(0, Table(TableName.RAW, _raw()))
    return RuleSet(
        families=families,
        tables=tuple(tables),
        policy_rules=tuple(PolicyRule(family) for family in families),
        routes=tuple(LocalRoute(family) for family in families),
    )


def _mangle() -> tuple[Chain, ...]:
    # Kept in ingress mode as well: without them the application's answers to inbound HBONE never come back to the proxy.
    looped = Rule((Mark(MarkOf.CONNECTION, c.LOOP_MARK),), RestoreMark())
    return (
        Chain(Hook.PREROUTING, "filter", -150, (Rule((_OWN,), SetConnmark(c.LOOP_MARK)),)),
        # "route": a changed mark must have the packet routed again.
        Chain(Hook.OUTPUT, "route", -150, (looped,)),
    )


def _raw() -> tuple[Chain, ...]:
    answers = Rule((_UDP, Port(Side.SOURCE, c.PORT_DNS), _NOT_OWN), Zone(c.DNS_ZONE))
    queries = Rule((_UDP, Port(Side.DESTINATION, c.PORT_DNS), _OWN), Zone(c.DNS_ZONE))
    return (Chain(Hook.PREROUTING, "filter", -300, (answers,)), Chain(Hook.OUTPUT, "filter", -300, (queries,)))


def _nat(config: CaptureConfig, families: tuple[Family, ...]) -> tuple[Chain, ...]:
    loopback = {Family.V4: c.LOOPBACK_V4, Family.V6: c.LOOPBACK_V6}
    probe = {Family.V4: config.probe_ipv4, Family.V6: config.probe_ipv6}
    beyond_loopback = {f: Address(Side.DESTINATION, loopback[f], negate=True) for f in families}

    inbound: list[Rule] = []
    for name in config.virtual_interfaces:
        arrives = Interface(Side.SOURCE, name)
        inbound += [Rule((arrives, _TCP), Redirect(c.PORT_OUTBOUND)), Rule((arrives, _TCP), Return())]
    if not config.ingress:
        inbound += [Rule((Address(Side.SOURCE, probe[f]), _TCP), Accept(), f) for f in families]
        not_hbone = Port(Side.DESTINATION, c.PORT_HBONE, negate=True)
        inbound += [Rule((beyond_loopback[f], _TCP, not_hbone, _NOT_OWN), Redirect(c.PORT_INBOUND_PLAINTEXT), f) for f in families]

    outbound = [Rule((Address(Side.DESTINATION, probe[f]), _TCP), Accept(), f) for f in families]
    if config.dns_capture:
        dns = Port(Side.DESTINATION, c.PORT_DNS)
        outbound.append(Rule((_NOT_LO, _UDP, dns, _NOT_OWN), Redirect(c.PORT_DNS_PROXY)))
        outbound += [Rule((beyond_loopback[f], _TCP, dns, _NOT_OWN), Redirect(c.PORT_DNS_PROXY), f) for f in families]
    outbound.append(Rule((_TCP, Mark(MarkOf.PACKET, c.LOOP_MARK)), Accept()))
    # A pod that calls its own address stays out of the mesh: there is no wire to protect.
    outbound += [Rule((beyond_loopback[f], _LO), Accept(), f) for f in families]
    outbound += [Rule((beyond_loopback[f], _TCP, _NOT_OWN), Redirect(c.PORT_OUTBOUND), f) for f in families]
    return (
        Chain(Hook.PREROUTING, "nat", -100, tuple(inbound)),
        Chain(Hook.OUTPUT, "nat", -100, tuple(outbound)),
    )
