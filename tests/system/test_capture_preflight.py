"""Preflight and detection on this machine: what works is found, what is taken away is missed, and nothing is left."""

from pathlib import Path

import pytest

from capture.backends import BackendName
from capture.command import Tools
from capture.detect import BackendChoice, detect, probe
from capture.errors import BackendUnusableError, ConfigError
from capture.finding import Status
from capture.netns import scratch_netns
from capture.preflight import run_checks

REAL = Tools()


def tools_without(tmp_path: Path, *prefixes: str) -> Tools:
    """The packet filter tools of this machine, but for some."""
    folder = tmp_path / "bin"
    folder.mkdir()
    names = [
        f"{stem}-{kind}-{verb}" for stem in ("iptables", "ip6tables") for kind in ("nft", "legacy") for verb in ("save", "restore")
    ]
    for name in ["nft", *names]:
        path = REAL.find(name)
        if path is None:
            pytest.skip(f"{name} is not installed: apt-get install nftables iptables")
        if not name.startswith(prefixes):
            (folder / name).symlink_to(path)
    return Tools(search_path=str(folder), lock_dir=str(tmp_path / "locks"))


def test_this_machine_can_run_the_mesh(tmp_path: Path) -> None:
    report = run_checks(Tools(lock_dir=str(tmp_path / "unused")))
    found = {check.name: check.finding for check in report.checks}
    assert report.usable, [check for check in report.checks if check.finding.status is Status.FAIL]
    for name in ("nftables", "iptables-nft", "iptables-legacy", "SO_ORIGINAL_DST", "policy routing", "IP_TRANSPARENT", "SO_MARK"):
        assert found[name].status is Status.OK, found[name]
    assert not (tmp_path / "unused").exists()


def test_missing_tools_are_named_with_their_package(tmp_path: Path) -> None:
    report = run_checks(tools_without(tmp_path, "nft", "ip6tables-legacy"))
    found = {check.name: check.finding for check in report.checks}
    assert (found["nftables"].status, found["nftables"].remedy) == (Status.WARN, "apt-get install nftables")
    assert found["iptables-legacy"].found == "not installed: ip6tables-legacy-restore"
    assert found["any backend"].found == "usable: iptables-nft"
    assert report.usable


def test_without_any_tool_the_machine_is_not_usable(tmp_path: Path) -> None:
    tools = tools_without(tmp_path, "nft", "ip")
    report = run_checks(tools)
    assert not report.usable
    with pytest.raises(BackendUnusableError, match=r"nft is not installed.*ambient check"):
        detect(BackendChoice.AUTO, tools, {})


def test_preferences(tmp_path: Path) -> None:
    assert detect(BackendChoice.AUTO, REAL, {}).chosen is BackendName.NFTABLES
    assert detect(BackendChoice.AUTO, REAL, {"FORCE_IPTABLES_BINARY": "nft"}).chosen is BackendName.IPTABLES_NFT
    assert detect(BackendChoice.IPTABLES_LEGACY, REAL, {"FORCE_IPTABLES_BINARY": "nft"}).chosen is BackendName.IPTABLES_LEGACY
    with pytest.raises(ConfigError, match="'legacy' or 'nft'"):
        detect(BackendChoice.AUTO, REAL, {"FORCE_IPTABLES_BINARY": "nftables"})
    fallback = detect(BackendChoice.AUTO, tools_without(tmp_path, "nft"), {})
    assert fallback.chosen is BackendName.IPTABLES_NFT
    assert [(tried.name, tried.usable) for tried in fallback.candidates] == [("nftables", False), ("iptables-nft", True)]


def test_legacy_rules_in_use_are_a_reason_for_legacy(tmp_path: Path) -> None:
    tools = Tools(lock_dir=str(tmp_path))
    with scratch_netns() as netns:
        tools.run(netns, "iptables-legacy-restore", "--noflush", data=b"*filter\n-A OUTPUT -p icmp -j ACCEPT\nCOMMIT\n")
        found = detect(BackendChoice.AUTO, tools, {}, netns=netns)
    assert (found.chosen, found.why) == (BackendName.IPTABLES_LEGACY, "legacy iptables rules are in use there")


def test_a_library_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\ncat > /dev/null\necho python-iptables is gone >&2\nexit 1\n")
    python.chmod(0o755)
    candidate = probe(BackendName.IPTABLES_LEGACY, Tools(python=str(python), lock_dir=str(tmp_path)))
    assert not candidate.usable
    assert "python-iptables is gone" in candidate.reason
