"""The nft language, literally."""

from capture.model import Accept, Drop, Family, Jump, Protocol, Rule
from capture.render_nft import remove_transaction, render, render_guard, render_rule
from capture.rules import CaptureConfig, pod_rules

BASE = """\
add table inet istio-ambient-raw
delete table inet istio-ambient-raw
add table inet istio-ambient-mangle
delete table inet istio-ambient-mangle
add table inet istio-ambient-nat
delete table inet istio-ambient-nat
add table inet istio-ambient-mangle
add chain inet istio-ambient-mangle prerouting { type filter hook prerouting priority -150; policy accept; }
add chain inet istio-ambient-mangle istio-prerouting
add chain inet istio-ambient-mangle output { type route hook output priority -150; policy accept; }
add chain inet istio-ambient-mangle istio-output
add rule inet istio-ambient-mangle prerouting counter jump istio-prerouting
add rule inet istio-ambient-mangle istio-prerouting meta mark & 0xfff == 0x539 counter ct mark set ct mark & 0xfffff000 | 0x111
add rule inet istio-ambient-mangle output counter jump istio-output
add rule inet istio-ambient-mangle istio-output ct mark & 0xfff == 0x111 counter meta mark set ct mark
add table inet istio-ambient-nat
add chain inet istio-ambient-nat prerouting { type nat hook prerouting priority -100; policy accept; }
add chain inet istio-ambient-nat istio-prerouting
add chain inet istio-ambient-nat output { type nat hook output priority -100; policy accept; }
add chain inet istio-ambient-nat istio-output
add rule inet istio-ambient-nat prerouting counter jump istio-prerouting
add rule inet istio-ambient-nat istio-prerouting ip saddr 169.254.7.127 meta l4proto tcp counter accept
add rule inet istio-ambient-nat istio-prerouting ip daddr != 127.0.0.1 tcp dport != 15008 meta mark & 0xfff != 0x539 counter redirect to :15006
add rule inet istio-ambient-nat output counter jump istio-output
add rule inet istio-ambient-nat istio-output ip daddr 169.254.7.127 meta l4proto tcp counter accept
add rule inet istio-ambient-nat istio-output meta l4proto tcp meta mark & 0xfff == 0x111 counter accept
add rule inet istio-ambient-nat istio-output ip daddr != 127.0.0.1 oifname "lo" counter accept
add rule inet istio-ambient-nat istio-output ip daddr != 127.0.0.1 meta l4proto tcp meta mark & 0xfff != 0x539 counter redirect to :15001
"""  # noqa: E501 - as nft takes it


def test_one_transaction_replaces_whatever_was_there() -> None:
    assert render(pod_rules(CaptureConfig(ipv6=False))) == BASE


def test_dns_and_interfaces() -> None:
    text = render(pod_rules(CaptureConfig(dns_capture=True, virtual_interfaces=("tap0",))))
    rules = [line.split("istio-ambient-", 1)[1] for line in text.splitlines() if line.startswith("add rule")]
    assert 'nat istio-prerouting iifname "tap0" meta l4proto tcp counter redirect to :15001' in rules
    assert 'nat istio-prerouting iifname "tap0" meta l4proto tcp counter return' in rules
    assert 'nat istio-output oifname != "lo" udp dport 53 meta mark & 0xfff != 0x539 counter redirect to :15053' in rules
    assert "nat istio-output ip6 daddr != ::1 tcp dport 53 meta mark & 0xfff != 0x539 counter redirect to :15053" in rules
    assert "raw istio-output udp dport 53 meta mark & 0xfff == 0x539 counter ct zone set 1" in rules
    assert "raw istio-prerouting udp sport 53 meta mark & 0xfff != 0x539 counter ct zone set 1" in rules


def test_the_guardrail_drops_tcp_and_udp_everywhere() -> None:
    text = render_guard()
    for hook in ("input", "forward", "output"):
        assert f"add chain inet istio-ambient-guard {hook} {{ type filter hook {hook} priority 0; policy accept; }}\n" in text
        for protocol in ("tcp", "udp"):
            assert f"add rule inet istio-ambient-guard {hook} meta l4proto {protocol} counter drop\n" in text


def test_removal_cannot_fail_for_a_table_that_is_not_there() -> None:
    assert remove_transaction("t") == "add table inet t\ndelete table inet t\n"


def test_a_family_without_an_address_is_said() -> None:
    assert render_rule(Rule((Protocol("tcp"),), Accept(), Family.V6)) == "meta nfproto ipv6 meta l4proto tcp counter accept"
    assert render_rule(Rule((), Drop())) == "counter drop"
    assert render_rule(Rule((), Jump("x"))) == "counter jump x"
