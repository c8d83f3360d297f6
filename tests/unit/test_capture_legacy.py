"""Jobs for the python-iptables child, literally."""

import msgspec
import pytest

from capture.legacy import install_job, legacy_rule, remove_job
from capture.legacy_child import Job, LegacyRule
from capture.model import Drop, Family, Interface, Jump, Return, Rule, Side
from capture.parse_iptables import FamilyState, TableState
from capture.rules import CaptureConfig, pod_rules


def test_rules_in_the_librarys_terms() -> None:
    job = install_job(pod_rules(CaptureConfig()), FamilyState(Family.V6, {}))
    assert [table.name for table in job.tables] == ["mangle", "nat"]
    mangle, nat = job.tables
    assert [(chain.name, chain.builtin) for chain in nat.chains] == [("ISTIO_PRERT", "PREROUTING"), ("ISTIO_OUTPUT", "OUTPUT")]
    assert nat.chains[0].rules == (
        LegacyRule(target="ACCEPT", protocol="tcp", source="fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128"),
        LegacyRule(
            target="REDIRECT",
            options=(("to-ports", "15006"),),
            matches=(("tcp", "dport", "!15008"), ("mark", "mark", "!0x539/0xfff")),
            protocol="tcp",
            destination="!::1/128",
        ),
    )
    assert mangle.chains[0].rules == (
        LegacyRule(target="CONNMARK", options=(("set-xmark", "0x111/0xfff"),), matches=(("mark", "mark", "0x539/0xfff"),)),
    )
    assert mangle.chains[1].rules == (
        LegacyRule(
            target="CONNMARK",
            options=(("restore-mark", ""), ("nfmask", "0xffffffff"), ("ctmask", "0xffffffff")),
            matches=(("connmark", "mark", "0x111/0xfff"),),
        ),
    )


def test_other_targets_and_interfaces() -> None:
    assert legacy_rule(Rule((Interface(Side.SOURCE, "tap0"),), Return())) == LegacyRule(target="RETURN", in_interface="tap0")
    assert legacy_rule(Rule((Interface(Side.DESTINATION, "lo", True),), Drop())) == LegacyRule(target="DROP", out_interface="!lo")
    assert legacy_rule(Rule((), Jump("X"))) == LegacyRule(target="X")


def test_tables_no_longer_wanted_lose_ours_and_removal_takes_nat_first() -> None:
    state = FamilyState(Family.V4, {"raw": TableState(), "mangle": TableState(), "nat": TableState(), "filter": TableState()})
    job = install_job(pod_rules(CaptureConfig()), state)
    assert [(table.name, table.remove) for table in job.tables][2] == ("raw", ("ISTIO_PRERT", "ISTIO_OUTPUT"))
    assert [table.name for table in remove_job(state).tables] == ["nat", "mangle", "raw"]


def test_the_wire_form_comes_back_and_anything_else_is_refused() -> None:
    job = install_job(pod_rules(CaptureConfig(dns_capture=True)), FamilyState(Family.V4, {}))
    assert msgspec.json.decode(msgspec.json.encode(job), type=Job) == job
    for data in (b"", b"{}", b'{"family": 5, "tables": []}', b'{"family": 4, "tables": [], "extra": 1}'):
        with pytest.raises(msgspec.DecodeError):
            msgspec.json.decode(data, type=Job)
