"""Policy routing in a pod's netns: the part of capture that no packet filter can express.

Called by the manager. Speaks netlink by pyroute2, which is imported here only when it is used, in a thread that is in the netns.
Rules and routes of others, also in the same table, are left alone.
"""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from capture.errors import RoutingError
from capture.model import Family, LocalRoute, PolicyRule, RuleSet
from capture.netns import NetnsRef, call_in_netns
from capture.snapshot import Drift

__all__ = ["apply_routing", "remove_routing", "verify_routing"]

_T = TypeVar("_T")
_S = TypeVar("_S", PolicyRule, LocalRoute)
_AF: Final = {Family.V4: 2, Family.V6: 10}
_TO_TABLE: Final = 1  # FR_ACT_TO_TBL, linux/fib_rules.h
_RTN_LOCAL: Final = 2  # linux/rtnetlink.h
_SCOPE: Final = {Family.V4: 254, Family.V6: 0}  # RT_SCOPE_HOST; IPv6 knows no scopes here


def apply_routing(netns: NetnsRef, rules: RuleSet) -> None:
    """Adds what is missing of ``rules``; there already: no change. Families that are off in the netns are passed over.

    Raises :class:`RoutingError` (the kernel refused) or :class:`~capture.errors.NetnsError`.
    """

    def apply(ip: Any) -> None:
        lo = _loopback(ip)
        for route in _wanted(rules.routes):
            ip.route("replace", **_route(route, lo))
        for rule in _wanted(rules.policy_rules):
            _ignoring(errno.EEXIST, ip.rule, "add", _rule(rule))

    _with_netlink(netns, "added", apply)


def verify_routing(netns: NetnsRef, rules: RuleSet) -> Drift:
    """What is missing, as :func:`apply_routing` would add it. Raises as that does."""
    return _with_netlink(netns, "listed", lambda ip: _missing(ip, rules))


def remove_routing(netns: NetnsRef, rules: RuleSet) -> bool:
    """Removes exactly the rules and routes of ``rules``; whether there was one. Raises as :func:`apply_routing` does."""

    def remove(ip: Any) -> bool:
        lo = _loopback(ip)
        changed = False
        for rule in _wanted(rules.policy_rules):
            if _has_rule(ip, rule):
                changed = True
                _ignoring(errno.ENOENT, ip.rule, "del", _rule(rule))
        for route in _wanted(rules.routes):
            if _has_route(ip, route, lo):
                changed = True
                _ignoring(errno.ESRCH, ip.route, "del", _route(route, lo))
        return changed

    return _with_netlink(netns, "removed", remove)


def _with_netlink(netns: NetnsRef, verb: str, work: Callable[[Any], _T]) -> _T:
    def run() -> _T:
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            with IPRoute() as ip:
                return work(ip)
        except (NetlinkError, OSError) as error:
            remedy = "; CAP_NET_ADMIN is needed" if getattr(error, "code", 0) == errno.EPERM else ""
            raise RoutingError(f"policy routing cannot be {verb}: {error}{remedy}") from error

    return call_in_netns(netns, run)


def _missing(ip: Any, rules: RuleSet) -> Drift:
    lo = _loopback(ip)
    missing = [f"policy routing: {_rule_text(rule)}" for rule in _wanted(rules.policy_rules) if not _has_rule(ip, rule)]
    missing += [f"policy routing: {_route_text(route)}" for route in _wanted(rules.routes) if not _has_route(ip, route, lo)]
    return Drift(missing=tuple(missing))


def _wanted(items: tuple[_S, ...]) -> tuple[_S, ...]:
    return tuple(item for item in items if item.family is Family.V4 or _ipv6_on())


def _ipv6_on() -> bool:
    """In the calling thread's netns, loopback speaks IPv6. Without it the kernel refuses the route, and no packet needs it."""
    try:
        return Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").read_text().strip() == "0"
    except OSError:
        return False


def _loopback(ip: Any) -> int:
    found = ip.link_lookup(ifname="lo")
    if not found:
        raise RoutingError("the network namespace has no interface lo")
    return int(found[0])


def _rule(rule: PolicyRule) -> dict[str, object]:
    return {
        "family": _AF[rule.family],
        "fwmark": rule.mark,
        "fwmask": rule.mask,
        "table": rule.table,
        "priority": rule.priority,
    }


def _route(route: LocalRoute, lo: int) -> dict[str, object]:
    return {
        "family": _AF[route.family],
        "dst": "default",
        "type": "local",
        "oif": lo,
        "table": route.table,
        "scope": _SCOPE[route.family],
    }


def _has_rule(ip: Any, rule: PolicyRule) -> bool:
    selectors = ("FRA_SRC", "FRA_DST", "FRA_IIFNAME", "FRA_OIFNAME", "FRA_IP_PROTO", "FRA_SPORT_RANGE", "FRA_DPORT_RANGE")
    want = {
        "FRA_TABLE": rule.table,
        "FRA_PRIORITY": rule.priority,
        "FRA_FWMARK": rule.mark,
        "FRA_FWMASK": rule.mask,
        **dict.fromkeys(selectors),
    }
    return any(
        message["action"] == _TO_TABLE and all(message.get_attr(name) == value for name, value in want.items())
        for message in ip.get_rules(family=_AF[rule.family])
    )


def _has_route(ip: Any, route: LocalRoute, lo: int) -> bool:
    return any(
        message["type"] == _RTN_LOCAL
        and message["dst_len"] == 0
        and message.get_attr("RTA_OIF") == lo
        and message.get_attr("RTA_TABLE") == route.table
        for message in ip.get_routes(family=_AF[route.family], table=route.table)
    )


def _ignoring(number: int, request: Callable[..., object], verb: str, fields: dict[str, object]) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        request(verb, **fields)
    except NetlinkError as error:
        if error.code != number:
            raise


def _rule_text(rule: PolicyRule) -> str:
    return f"IPv{rule.family.value} rule fwmark {rule.mark:#x}/{rule.mask:#x} lookup {rule.table} priority {rule.priority}"


def _route_text(route: LocalRoute) -> str:
    return f"IPv{route.family.value} route local default dev lo table {route.table}"
