"""Authorization messages byte by byte: what they mean, and what is refused rather than half understood."""

import contextlib
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import policy.wire
from policy.errors import PolicyWireError
from policy.model import Action, Authorization, Match, PolicyKey, Scope, ServiceAccountMatch, StringMatch, StringMatchKind
from policy.wire import MAX_BYTES, from_wire, to_wire

ROOT = Path(policy.wire.__file__).parent.parent

STRICT = (
    b"\x0a\x1distio_converted_static_strict"  # name
    b"\x12\x0cistio-system"  # namespace
    b"\x18\x02"  # scope: WORKLOAD_SELECTOR
    b"\x20\x01"  # action: DENY
    b"\x2a\x08\x0a\x06\x12\x04"  # rules, clauses, matches
    b"\x22\x02\x22\x00"  # not_principals: presence
)
STRICT_POLICY = Authorization(
    name="istio_converted_static_strict",
    namespace="istio-system",
    scope=Scope.WORKLOAD_SELECTOR,
    action=Action.DENY,
    rules=(((Match(not_principals=(StringMatch(StringMatchKind.PRESENCE),)),),),),
)


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    assert number < 16
    assert len(payload) < 128
    return bytes([number << 3 | 2, len(payload)]) + payload


def policy_of(match: bytes, head: bytes = b"\x0a\x01p\x12\x01n\x18\x02") -> bytes:
    return head + field(5, field(1, field(2, match)))


def match_of(match: bytes) -> Match:
    return from_wire(policy_of(match)).rules[0][0][0]


def test_the_strict_policy_literally():
    assert from_wire(STRICT) == STRICT_POLICY
    assert to_wire(STRICT_POLICY) == STRICT


def test_defaults_are_absent_global_and_allow():
    assert from_wire(b"\x0a\x01p\x12\x01n") == Authorization(name="p", namespace="n", scope=Scope.GLOBAL, action=Action.ALLOW)
    assert from_wire(b"\x0a\x01p\x12\x01n\x18\x01\x30\x01") == Authorization(
        name="p", namespace="n", scope=Scope.NAMESPACE, action=Action.ALLOW, dry_run=True
    )


def test_empty_rule_clause_and_match_stay_what_they_are():
    assert from_wire(b"\x0a\x01p\x2a\x00").rules == ((),)
    assert from_wire(b"\x0a\x01p\x2a\x02\x0a\x00").rules == (((),),)
    assert from_wire(b"\x0a\x01p\x2a\x04\x0a\x02\x12\x00").rules == (((Match(),),),)


A, B = b"\x0a\x01a", b"\x12\x01b"
TEN = b"\x0a\x04\x0a\x01\x02\x03\x10\x08"


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (field(1, A), Match(namespaces=(StringMatch(StringMatchKind.EXACT, "a"),))),
        (field(2, B), Match(not_namespaces=(StringMatch(StringMatchKind.PREFIX, "b"),))),
        (field(3, b"\x1a\x01c"), Match(principals=(StringMatch(StringMatchKind.SUFFIX, "c"),))),
        (field(4, b"\x22\x00"), Match(not_principals=(StringMatch(StringMatchKind.PRESENCE),))),
        (field(5, TEN), Match(source_ips=("10.0.0.0/8",))),
        (field(6, b"\x0a\x10\xfd" + bytes(14) + b"\x01\x10\x80\x01"), Match(not_source_ips=("fd00::1/128",))),
        (field(7, b"\x0a\x04" + bytes(4)), Match(destination_ips=("0.0.0.0/0",))),
        (field(8, b"\x0a\x10" + bytes(10) + b"\xff\xff\x0a\x00\x00\x01\x10\x80\x01"), Match(not_destination_ips=("10.0.0.1/32",))),
        (field(9, b"\x50\xff\xff\x03"), Match(destination_ports=(80, 65535))),
        (b"\x48\x50", Match(destination_ports=(80,))),  # not packed: legal as well
        (field(10, b"\x16"), Match(not_destination_ports=(22,))),
        (field(11, b"\x0a\x01a\x12\x01b"), Match(service_accounts=(ServiceAccountMatch("a", "b"),))),
        (field(12, b"\x0a\x01a\x12\x01b"), Match(not_service_accounts=(ServiceAccountMatch("a", "b"),))),
    ],
)
def test_each_field_of_a_match(wire, expected):
    assert match_of(wire) == expected
    assert match_of(to_wire_match(expected)) == expected


def to_wire_match(match: Match) -> bytes:
    wire = to_wire(Authorization(name="p", namespace="n", scope=Scope.GLOBAL, action=Action.ALLOW, rules=(((match,),),)))
    return wire[len(b"\x0a\x01p\x12\x01n") + 6 :]


@pytest.mark.parametrize(
    ("match", "cause"),
    [
        (field(1, b""), r"rules\[0\]\[0\]\[0\]\.namespaces has a string match without a kind"),
        (field(3, field(5, b"x")), r"principals has the unknown field 5"),
        (field(4, b"\x22\x02\x08\x01"), r"not_principals has the unknown field 1"),
        (field(13, b""), r"rules\[0\]\[0\]\[0\] has the unknown field 13: from a newer control plane\?"),
        (field(14, b"x"), r"unknown field 14"),
        (field(1, A)[:1].replace(b"\x0a", b"\x08") + b"\x01", r"unknown field 1:"),  # known number, other wire type
        (field(5, b""), r"source_ips: an IP address has 4 or 16 bytes, this has 0"),
        (field(5, b"\x0a\x05abcde"), r"source_ips: an IP address has 4 or 16 bytes, this has 5"),
        (field(6, b"\x0a\x04abcd\x10\x21"), r"not_source_ips: prefix length 33 is not in 0\.\.32"),
        (field(7, b"\x0a\x10" + bytes(16) + b"\x10\x81\x01"), r"destination_ips: prefix length 129 is not in 0\.\.128"),
        (field(8, b"\x0a\x04abcd\x10\xff\xff\xff\xff\x0f"), r"not_destination_ips: prefix length 4294967295"),
        (field(8, TEN + b"\x18\x01"), r"not_destination_ips has the unknown field 3"),
        (field(9, b"\x80\x80\x04"), r"destination_ports: port 65536 is not in 1\.\.65535"),
        (field(10, b"\x00"), r"not_destination_ports: port 0 is not in 1\.\.65535"),
        (field(11, b"\x0a\x01a"), r"service_accounts has a service account without namespace or name"),
        (field(12, b"\x0a\x01a\x12\x01b\x1a\x01c"), r"not_service_accounts has the unknown field 3"),
    ],
)
def test_a_match_not_wholly_understood_is_refused(match, cause):
    with pytest.raises(PolicyWireError, match=cause) as caught:
        from_wire(policy_of(match))
    # ... and says whom the policy would have applied to.
    assert (caught.value.key, caught.value.namespace, caught.value.scope) == (PolicyKey("n/p"), "n", Scope.WORKLOAD_SELECTOR)


@pytest.mark.parametrize(
    ("wire", "scope", "cause"),
    [
        (b"\x0a\x01p\x12\x01n\x18\x03", None, "authorization n/p: unknown scope 3"),
        (b"\x0a\x01p\x12\x01n\x18\x01\x20\x02", Scope.NAMESPACE, "authorization n/p: unknown action 2"),
        (b"\x0a\x01p\x12\x01n\x3a\x00", Scope.GLOBAL, "policy has the unknown field 7"),
        (b"\x0a\x01p\x12\x01n\x2a\x02\x10\x01", Scope.GLOBAL, r"rules\[0\] has the unknown field 2"),
        (b"\x0a\x01p\x12\x01n\x2a\x04\x0a\x02\x08\x01", Scope.GLOBAL, r"rules\[0\]\[0\] has the unknown field 1"),
        (b"\x12\x01n", Scope.GLOBAL, "it has no name"),
        (b"", Scope.GLOBAL, "it has no name"),
    ],
)
def test_a_policy_not_wholly_understood_is_refused(wire, scope, cause):
    with pytest.raises(PolicyWireError, match=cause) as caught:
        from_wire(wire)
    assert caught.value.scope is scope


@pytest.mark.parametrize("cut", range(3, len(STRICT) - 12))
def test_a_truncated_message_is_never_the_policy(cut):
    with contextlib.suppress(PolicyWireError):
        assert from_wire(STRICT[:cut]) != STRICT_POLICY


def test_text_that_is_not_utf8_is_refused():
    with pytest.raises(PolicyWireError, match="not an Authorization message"):
        from_wire(b"\x0a\x01\xff")


def test_size_is_bounded():
    with pytest.raises(PolicyWireError, match=f"{MAX_BYTES + 1} bytes, more than {MAX_BYTES}"):
        from_wire(bytes(MAX_BYTES + 1))


def test_number_of_matches_is_bounded(monkeypatch):
    monkeypatch.setattr(policy.wire, "MAX_MATCHES", 3)
    assert len(from_wire(b"\x0a\x01p" + b"\x2a\x00" * 3).rules) == 3
    with pytest.raises(PolicyWireError, match=r"more than 3 rules, clauses and matches, at rules\[3\]"):
        from_wire(b"\x0a\x01p" + b"\x2a\x00" * 4)


def test_number_of_values_is_bounded(monkeypatch):
    monkeypatch.setattr(policy.wire, "MAX_VALUES", 2)
    assert match_of(field(9, b"\x01\x02")) == Match(destination_ports=(1, 2))
    with pytest.raises(PolicyWireError, match=r"more than 2 values, at rules\[0\]\[0\]\[0\]"):
        match_of(field(9, b"\x01\x02\x03"))


@pytest.mark.skipif(find_spec("grpc_tools") is None, reason="grpcio-tools is not installed: the generated code is not compared")
def test_generated_code_is_that_of_the_proto_file(tmp_path):
    shutil.copytree(ROOT / "policy/proto", tmp_path / "policy/proto", ignore=shutil.ignore_patterns("*_pb2*", "__pycache__"))
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        "-I.",
        "--python_out=.",
        "--pyi_out=.",
        "policy/proto/authorization.proto",
    ]
    subprocess.run(command, cwd=tmp_path, check=True)
    for name in ("authorization_pb2.py", "authorization_pb2.pyi"):
        assert (tmp_path / "policy/proto" / name).read_text() == (ROOT / "policy/proto" / name).read_text()
