"""nft's JSON, read: literally, in the forms of several versions, and whatever bytes come."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture import parse_nft
from capture.errors import ParseError
from capture.parse_nft import expected_snapshot, parse_listing, parse_rule
from capture.rules import CaptureConfig, pod_rules

COUNTER = {"counter": {"packets": 7, "bytes": 420}}
MARK = {"match": {"op": "!=", "left": {"&": [{"meta": {"key": "mark"}}, 4095]}, "right": 1337}}
TCP = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}


def field(protocol: str, name: str, right: Any, op: str = "==") -> Any:
    return {"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": name}}, "right": right}}


def set_ct_mark(value: Any) -> Any:
    return [{"mangle": {"key": {"ct": {"key": "mark"}}, "value": value}}]


def bits(operator: str, keep: int, value: int) -> Any:
    return {operator: [{"&": [{"ct": {"key": "mark"}}, keep]}, value]}


@pytest.mark.parametrize(
    ("expressions", "line"),
    [
        (
            [
                field("ip", "daddr", "127.0.0.1", "!="),
                field("tcp", "dport", 15008, "!="),
                MARK,
                COUNTER,
                {"redirect": {"port": 15006}},
            ],
            "ipv4 not destination 127.0.0.1 not destination-port 15008 not packet-mark 0x539/0xfff protocol tcp -> redirect 15006",
        ),
        ([field("ip6", "saddr", "fd16::1"), TCP, COUNTER, {"accept": None}], "ipv6 protocol tcp source fd16::1 -> accept"),
        ([{"jump": {"target": "istio-output"}}], "-> jump istio-output"),
        ([field("udp", "sport", 53), {"mangle": {"key": {"ct": {"key": "zone"}}, "value": 1}}], None),
        ([{"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"ct": {"key": "mark"}}}}], "-> restore packet-mark"),
        # As written, as nft 1.0 prints it after the kernel has folded the masks, and as iptables-nft's translation has it.
        (set_ct_mark(bits("|", 0xFFFFF000, 0x111)), "-> set connection-mark 0x111/0xfff"),
        (set_ct_mark(bits("|", 0xFFFFF111, 0x111)), "-> set connection-mark 0x111/0xfff"),
        (set_ct_mark(bits("^", 0xFFFFF000, 0x111)), "-> set connection-mark 0x111/0xfff"),
    ],
)
def test_forms_that_are_understood(expressions: Any, line: str | None) -> None:
    assert parse_rule(expressions) == (line or "protocol udp source-port 53 -> conntrack zone 1")


@pytest.mark.parametrize(
    "expressions",
    [
        None,
        [],
        [COUNTER],
        [{"accept": None}, {"drop": None}],
        [{"accept": None}, COUNTER],
        [{"xt": {"type": "target", "name": "REDIRECT"}}],
        [{"redirect": {"port": 15001, "flags": "random"}}],
        [{"redirect": {"port": {"range": [1, 2]}}}],
        [field("ip", "daddr", {"prefix": {"addr": "10.0.0.0", "len": 8}}), {"accept": None}],
        [field("ip", "daddr", "::1"), {"accept": None}],
        [field("tcp", "dport", {"set": [1, 2]}), {"accept": None}],
        [field("tcp", "dport", True), {"accept": None}],
        [field("tcp", "dport", 53, ">"), {"accept": None}],
        set_ct_mark(bits("^", 0xFFFFF111, 0x111)),
        set_ct_mark(273),
    ],
)
def test_forms_that_our_rules_never_have_stay_foreign(expressions: Any) -> None:
    assert parse_rule(expressions).startswith("foreign rule ")


def listing(*items: Any) -> bytes:
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *items]}).encode()


def test_only_our_tables_are_looked_into() -> None:
    found = parse_listing(
        listing(
            {"table": {"family": "inet", "name": "mine", "handle": 1}},
            {"rule": {"family": "inet", "table": "mine", "chain": "output", "expr": [{"drop": None}]}},
            {"table": {"family": "ip", "name": "istio-ambient-nat", "handle": 1}},
            {"table": {"family": "inet", "name": "istio-ambient-nat", "handle": 2, "flags": "dormant"}},
            {
                "chain": {
                    "family": "inet",
                    "table": "istio-ambient-nat",
                    "name": "output",
                    "type": "nat",
                    "hook": "output",
                    "prio": 0,
                }
            },
            {"rule": {"family": "inet", "table": "istio-ambient-nat", "chain": "output", "expr": [{"accept": None}]}},
            {"set": {"family": "inet", "table": "istio-ambient-nat", "name": "s"}},
        )
    )
    assert found.snapshot.chains == {
        "nftables istio-ambient-nat": ('flags "dormant"', "a set named 's'"),
        "nftables istio-ambient-nat output": ("type nat hook output priority 0 policy None", "-> accept"),
    }
    assert not found.snapshot.guard
    assert not found.iptables_leftovers


def test_the_guardrail_and_iptables_leftovers_are_seen() -> None:
    found = parse_listing(
        listing(
            {"table": {"family": "inet", "name": "istio-ambient-guard", "handle": 1}},
            {"chain": {"family": "ip6", "table": "nat", "name": "ISTIO_OUTPUT"}},
        )
    )
    assert found.snapshot.guard
    assert found.iptables_leftovers


def test_expected_chains() -> None:
    chains = expected_snapshot(pod_rules(CaptureConfig())).chains
    assert chains["nftables istio-ambient-mangle output"] == (
        "type route hook output priority -150 policy accept",
        "-> jump istio-output",
    )
    assert chains["nftables istio-ambient-mangle istio-output"] == ("connection-mark 0x111/0xfff -> restore packet-mark",)
    assert len(chains) == 10


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"nftables": 3}', b"\xff", b"[" * 100_000])
def test_what_is_no_listing_is_refused(data: bytes) -> None:
    with pytest.raises(ParseError, match="nft's listing"):
        parse_listing(data)


def test_a_listing_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse_nft, "MAX_LISTING", 100)
    with pytest.raises(ParseError, match="more than the 100"):
        parse_listing(b" " * 101)


def test_depth_is_bounded() -> None:
    nested: Any = "x"
    for _ in range(900):
        nested = {"&": [nested, 1]}
    assert parse_rule([{"match": {"op": "==", "left": nested, "right": 1}}, {"accept": None}]).startswith("foreign rule ")


KEYS = """match op left right meta key mark ct & | ^ payload protocol field mangle value redirect port accept jump target
    table chain rule family name inet expr flags nftables"""
keys = st.sampled_from(KEYS.split())
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        keys,
        st.text(max_size=5),
        st.sampled_from(
            ["==", "!=", "ip", "tcp", "dport", "istio-ambient-nat", "istio-ambient-guard", "ISTIO_OUTPUT", "nat", "::1"]
        ),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=20,
)


@given(values)
def test_any_expression_gives_a_line(value: Any) -> None:
    assert isinstance(parse_rule(value), str)


@given(st.one_of(st.binary(max_size=100), st.lists(values, max_size=5).map(lambda items: json.dumps({"nftables": items}).encode())))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(ParseError):
        parse_listing(data)
