"""The preflight report: its verdict, its two forms, and host checks against what they read."""

import json
import os
import resource

import pytest
from click.testing import CliRunner

from ambient.cli.check import command
from capture import preflight, preflight_host, preflight_net
from capture.command import Tools
from capture.errors import NetnsError
from capture.finding import Finding, Status, ok
from capture.preflight import Check, Group, Report, run_checks

GOOD = Check(Group.KERNEL, "version", ok("6.1", "reason"))
WARN = Check(Group.SYSTEM, "bpffs", Finding(Status.WARN, "not mounted", "speed", "mount it"))
FAIL = Check(Group.CAPTURE, "any backend", Finding(Status.FAIL, "none [works]", "no traffic", "apt-get install nftables"))


@pytest.fixture
def without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an ordinary user meets, also when the tests run as root."""

    def refuse() -> None:
        raise NetnsError("a network namespace cannot be made: Operation not permitted")

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(preflight_host, "_effective_capabilities", lambda: 0)
    monkeypatch.setattr(preflight_net, "scratch_netns", refuse)


def test_warnings_do_not_make_a_machine_unusable() -> None:
    assert Report((GOOD, WARN)).usable
    assert not Report((GOOD, FAIL)).usable


@pytest.mark.parametrize(("last", "status"), [(WARN, 0), (FAIL, 1)])
def test_json_and_exit_status(monkeypatch: pytest.MonkeyPatch, last: Check, status: int) -> None:
    monkeypatch.setattr(preflight, "run_checks", lambda: Report((GOOD, last)))
    result = CliRunner().invoke(command, ["-o", "json"])
    assert result.exit_code == status
    document = json.loads(result.stdout)
    assert document["usable"] == (status == 0)
    assert document["checks"][0] == {
        "group": "kernel",
        "name": "version",
        "status": "ok",
        "found": "6.1",
        "why": "reason",
        "remedy": "",
    }


def test_the_table_explains_what_is_not_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "run_checks", lambda: Report((GOOD, WARN, FAIL)))
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 1
    assert "\x1b" not in result.stdout, "no colour where there is no terminal"
    assert "none [works]" in result.stdout
    assert "Remedy: apt-get install nftables" in result.stdout
    assert "Why:    speed" in result.stdout
    assert "reason" not in result.stdout, "an item that is ok takes one line"


@pytest.mark.usefixtures("without_root")
def test_without_root_it_explains_and_tries_nothing() -> None:
    report = run_checks()
    found = {check.name: check.finding for check in report.checks}
    assert not report.usable
    assert found["root"].status is Status.FAIL
    assert found["CAP_NET_ADMIN"].status is Status.FAIL
    assert found["CAP_SYS_PTRACE"].status is Status.WARN
    for name in ("nftables", "iptables-legacy", "SO_ORIGINAL_DST", "policy routing"):
        assert found[name].found == "not tried: needs root"
    for finding in found.values():
        assert finding.why
        assert bool(finding.remedy) == (finding.status is not Status.OK)


def test_a_check_that_breaks_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Tools) -> object:
        return iter([(Group.SYSTEM, "clock", lambda: 1 // 0)])

    monkeypatch.setattr(preflight, "checks", broken)
    (check,) = run_checks().checks
    assert check.finding.status is Status.FAIL
    assert "ZeroDivisionError" in check.finding.found


@pytest.mark.parametrize(
    ("release", "status"),
    [("6.18.44-x", Status.OK), ("5.4.0", Status.OK), ("5.3", Status.WARN), ("4.17.9", Status.FAIL), ("?", Status.FAIL)],
)
def test_kernel_versions(monkeypatch: pytest.MonkeyPatch, release: str, status: Status) -> None:
    monkeypatch.setattr(preflight_host.platform, "release", lambda: release)
    assert preflight_host.kernel().status is status


@pytest.mark.parametrize(
    ("hard", "status"), [(resource.RLIM_INFINITY, Status.OK), (1048576, Status.OK), (20000, Status.WARN), (1024, Status.FAIL)]
)
def test_open_files(monkeypatch: pytest.MonkeyPatch, hard: int, status: Status) -> None:
    monkeypatch.setattr(preflight_host.resource, "getrlimit", lambda _: (1024, hard))
    assert preflight_host.open_files().status is status


@pytest.mark.parametrize(("now", "synchronized", "status"), [(1.8e9, True, "ok"), (1.8e9, False, "warn"), (1.0e9, True, "fail")])
def test_clock(monkeypatch: pytest.MonkeyPatch, now: float, synchronized: bool, status: str) -> None:
    monkeypatch.setattr(preflight_host.time, "time", lambda: now)
    monkeypatch.setattr(preflight_host, "_synchronized", lambda: synchronized)
    assert preflight_host.clock().status == status


def test_the_libraries_here_have_tls_1_3() -> None:
    finding = preflight_host.openssl()
    assert finding.status is Status.OK
    assert "TLS 1.3" in finding.found
