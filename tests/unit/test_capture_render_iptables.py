"""The iptables-restore language, literally, and what depends on what is there already."""

from capture.model import Family
from capture.parse_iptables import FamilyState, TableState, expected_snapshot, parse_save, snapshot_of
from capture.render_iptables import render, render_guard, render_remove, render_unguard
from capture.rules import CaptureConfig, pod_rules

FRESH_V6 = """\
*raw
:ISTIO_PRERT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A PREROUTING -j ISTIO_PRERT
-A ISTIO_PRERT -p udp -m udp --sport 53 -m mark ! --mark 0x539/0xfff -j CT --zone 1
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -p udp -m udp --dport 53 -m mark --mark 0x539/0xfff -j CT --zone 1
COMMIT
*mangle
:ISTIO_PRERT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A PREROUTING -j ISTIO_PRERT
-A ISTIO_PRERT -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
COMMIT
*nat
:ISTIO_PRERT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A PREROUTING -j ISTIO_PRERT
-A ISTIO_PRERT -i tap0 -p tcp -j REDIRECT --to-ports 15001
-A ISTIO_PRERT -i tap0 -p tcp -j RETURN
-A ISTIO_PRERT -s fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128 -p tcp -j ACCEPT
-A ISTIO_PRERT ! -d ::1/128 -p tcp -m tcp ! --dport 15008 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -d fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128 -p tcp -j ACCEPT
-A ISTIO_OUTPUT ! -o lo -p udp -m udp --dport 53 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT ! -d ::1/128 -p tcp -m tcp --dport 53 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT -p tcp -m mark --mark 0x111/0xfff -j ACCEPT
-A ISTIO_OUTPUT ! -d ::1/128 -o lo -j ACCEPT
-A ISTIO_OUTPUT ! -d ::1/128 -p tcp -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15001
COMMIT
"""
CONFIG = CaptureConfig(dns_capture=True, virtual_interfaces=("tap0",))


def test_a_fresh_netns() -> None:
    assert render(pod_rules(CONFIG), FamilyState(Family.V6, {})) == FRESH_V6


def test_what_is_rendered_reads_back_as_expected() -> None:
    rules = pod_rules(CONFIG)
    states = [FamilyState(family, {}) for family in rules.families]
    back = tuple(parse_save(render(rules, state).encode(), state.family) for state in states)
    assert snapshot_of(back) == expected_snapshot(rules)


def test_right_jumps_stay_and_wrong_ones_go() -> None:
    right, odd = "-A PREROUTING -j ISTIO_PRERT", "-A OUTPUT -p tcp -j ISTIO_OUTPUT"
    state = FamilyState(Family.V4, {"mangle": TableState({"ISTIO_PRERT": (), "ISTIO_OUTPUT": ()}, (right, odd))})
    mangle = render(pod_rules(CaptureConfig()), state).split("COMMIT")[0].splitlines()
    assert mangle[:5] == [
        "*mangle",
        ":ISTIO_PRERT - [0:0]",
        ":ISTIO_OUTPUT - [0:0]",
        "-D OUTPUT -p tcp -j ISTIO_OUTPUT",
        "-A ISTIO_PRERT -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff",
    ]
    assert "-A OUTPUT -j ISTIO_OUTPUT" in mangle


def test_a_jump_that_is_there_twice_becomes_one() -> None:
    jump = "-A OUTPUT -j ISTIO_OUTPUT"
    state = FamilyState(Family.V4, {"mangle": TableState({"ISTIO_OUTPUT": ()}, (jump, jump))})
    mangle = render(pod_rules(CaptureConfig()), state).split("COMMIT")[0].splitlines()
    assert mangle.count("-D OUTPUT -j ISTIO_OUTPUT") == 2
    assert mangle.count(jump) == 1


def test_a_table_that_is_no_longer_wanted_is_emptied_of_ours() -> None:
    state = FamilyState(Family.V4, {"raw": TableState({"ISTIO_PRERT": ("x",)}, ("-A PREROUTING -j ISTIO_PRERT",))})
    raw = render(pod_rules(CaptureConfig()), state).split("COMMIT")[0]
    assert raw == "*raw\n-D PREROUTING -j ISTIO_PRERT\n-F ISTIO_PRERT\n-X ISTIO_PRERT\n"


def test_removal_takes_nat_first_and_nothing_where_nothing_is() -> None:
    ours = TableState({"ISTIO_OUTPUT": ()}, ("-A OUTPUT -j ISTIO_OUTPUT",))
    text = render_remove(FamilyState(Family.V4, {"mangle": ours, "nat": ours, "filter": ours}))
    body = "-D OUTPUT -j ISTIO_OUTPUT\n-F ISTIO_OUTPUT\n-X ISTIO_OUTPUT\nCOMMIT\n"
    assert text == f"*nat\n{body}*mangle\n{body}"
    assert render_remove(FamilyState(Family.V4, {})) == ""


def test_the_guardrail_is_first_in_table_filter() -> None:
    assert render_guard(FamilyState(Family.V4, {})) == (
        "*filter\n:ISTIO_GUARD - [0:0]\n"
        "-A ISTIO_GUARD -p tcp -j DROP\n-A ISTIO_GUARD -p udp -j DROP\n"
        "-I INPUT 1 -j ISTIO_GUARD\n-I FORWARD 1 -j ISTIO_GUARD\n-I OUTPUT 1 -j ISTIO_GUARD\nCOMMIT\n"
    )
    there = FamilyState(Family.V4, {"filter": TableState({"ISTIO_GUARD": ()}, ("-A INPUT -j ISTIO_GUARD",))})
    assert "-D INPUT -j ISTIO_GUARD\n" in render_guard(there)
    assert render_unguard(there) == "*filter\n-D INPUT -j ISTIO_GUARD\n-F ISTIO_GUARD\n-X ISTIO_GUARD\nCOMMIT\n"
    assert render_unguard(FamilyState(Family.V4, {})) == ""
