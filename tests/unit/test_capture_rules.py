"""The rule set as data: what follows from a configuration, rule by rule."""

import pytest

from capture.errors import ConfigError
from capture.model import Family, Hook, LocalRoute, PolicyRule, RuleSet, TableName
from capture.rules import CaptureConfig, pod_rules


def lines(rules: RuleSet, table: TableName, hook: Hook, family: Family) -> list[str]:
    chains = [chain for t in rules.tables if t.name is table for chain in t.chains if chain.hook is hook]
    return [rule.canonical().partition(" ")[2] for chain in chains for rule in chain.for_family(family)]


def test_outbound_order_is_istios() -> None:
    rules = pod_rules(CaptureConfig(dns_capture=True))
    assert lines(rules, TableName.NAT, Hook.OUTPUT, Family.V4) == [
        "destination 169.254.7.127 protocol tcp -> accept",
        "destination-port 53 not out-interface lo not packet-mark 0x539/0xfff protocol udp -> redirect 15053",
        "destination-port 53 not destination 127.0.0.1 not packet-mark 0x539/0xfff protocol tcp -> redirect 15053",
        "packet-mark 0x111/0xfff protocol tcp -> accept",
        "not destination 127.0.0.1 out-interface lo -> accept",
        "not destination 127.0.0.1 not packet-mark 0x539/0xfff protocol tcp -> redirect 15001",
    ]


def test_inbound_spares_probes_and_hbone() -> None:
    rules = pod_rules(CaptureConfig())
    assert lines(rules, TableName.NAT, Hook.PREROUTING, Family.V6) == [
        "protocol tcp source fd16:9254:7127:1337:ffff:ffff:ffff:ffff -> accept",
        "not destination ::1 not destination-port 15008 not packet-mark 0x539/0xfff protocol tcp -> redirect 15006",
    ]


def test_connection_marks_bring_the_answers_back() -> None:
    rules = pod_rules(CaptureConfig())
    mark = ["packet-mark 0x539/0xfff -> set connection-mark 0x111/0xfff"]
    assert lines(rules, TableName.MANGLE, Hook.PREROUTING, Family.V4) == mark
    assert lines(rules, TableName.MANGLE, Hook.OUTPUT, Family.V4) == ["connection-mark 0x111/0xfff -> restore packet-mark"]
    assert rules.policy_rules == (PolicyRule(Family.V4, 0x111, 0xFFF, 100, 32764), PolicyRule(Family.V6, 0x111, 0xFFF, 100, 32764))
    assert rules.routes == (LocalRoute(Family.V4, 100), LocalRoute(Family.V6, 100))


def test_dns_queries_of_the_proxy_have_a_zone_of_their_own() -> None:
    assert [table.name for table in pod_rules(CaptureConfig()).tables] == [TableName.MANGLE, TableName.NAT]
    rules = pod_rules(CaptureConfig(dns_capture=True))
    assert lines(rules, TableName.RAW, Hook.OUTPUT, Family.V4) == [
        "destination-port 53 packet-mark 0x539/0xfff protocol udp -> conntrack zone 1"
    ]
    assert lines(rules, TableName.RAW, Hook.PREROUTING, Family.V4) == [
        "not packet-mark 0x539/0xfff protocol udp source-port 53 -> conntrack zone 1"
    ]


def test_ingress_mode_leaves_inbound_alone_and_keeps_the_marks() -> None:
    rules = pod_rules(CaptureConfig(ingress=True))
    assert lines(rules, TableName.NAT, Hook.PREROUTING, Family.V4) == []
    assert len(lines(rules, TableName.NAT, Hook.OUTPUT, Family.V4)) == 4
    assert lines(rules, TableName.MANGLE, Hook.PREROUTING, Family.V4)


def test_virtual_interfaces_come_first() -> None:
    rules = pod_rules(CaptureConfig(virtual_interfaces=("k6t-net0",)))
    assert lines(rules, TableName.NAT, Hook.PREROUTING, Family.V4)[:3] == [
        "in-interface k6t-net0 protocol tcp -> redirect 15001",
        "in-interface k6t-net0 protocol tcp -> return",
        "protocol tcp source 169.254.7.127 -> accept",
    ]


def test_without_ipv6_there_is_nothing_of_it() -> None:
    rules = pod_rules(CaptureConfig(ipv6=False))
    assert rules.families == (Family.V4,)
    assert ":" not in "".join(rule.canonical() for table in rules.tables for chain in table.chains for rule in chain.rules)
    assert len(rules.policy_rules) == len(rules.routes) == 1


@pytest.mark.parametrize("name", ["", "a" * 16, "eth0 -j ACCEPT", 'e"', "eth+", "eth*", "a/b", "..", "é", "eth0\n", "eth0;"])
def test_interface_names_that_could_be_read_otherwise_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="virtual_interfaces"):
        CaptureConfig(virtual_interfaces=(name,))


def test_too_many_or_repeated_interfaces_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most 16"):
        CaptureConfig(virtual_interfaces=tuple(f"eth{n}" for n in range(17)))
    with pytest.raises(ConfigError, match="different"):
        CaptureConfig(virtual_interfaces=("eth0", "eth0"))


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"probe_ipv4": "fd00::1"}, "probe_ipv4"),
        ({"probe_ipv4": "1.2.3.4/8"}, "probe_ipv4"),
        ({"probe_ipv6": "10.0.0.1"}, "probe_ipv6"),
        ({"probe_ipv6": "FD00:0::1"}, "write 'FD00:0::1' as 'fd00::1'"),
    ],
)
def test_probe_addresses_are_checked(fields: dict[str, str], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        CaptureConfig(**fields)  # type: ignore[arg-type]
