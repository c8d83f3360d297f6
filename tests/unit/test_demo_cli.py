"""``ambient demo``: wrong use and missing rights end it before anything is made."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from ambient.cli import cli
from capture import preflight
from capture.finding import Finding, Status
from capture.preflight import Check, Group, Report


@pytest.mark.parametrize(
    "words",
    [["--step", "-o", "json"], ["--end", "x", "--keep"], ["--end", "x", "--step"], ["--break", "everything"], ["surplus"]],
)
def test_wrong_use_ends_with_2(words: list[str]) -> None:
    done = CliRunner().invoke(cli, ["demo", *words])
    assert done.exit_code == 2, done.output


def test_without_root_rights_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    done = CliRunner().invoke(cli, ["demo"])
    assert done.exit_code == 1
    assert "root rights" in done.output
    assert "Remedy: run it with sudo" in done.output


def test_a_machine_that_cannot_run_the_mesh_is_told_in_the_preflights_words(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding(Status.FAIL, "no backend works", "redirection", "install nftables")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(preflight, "run_checks", lambda: Report((Check(Group.CAPTURE, "any backend", finding),)))
    done = CliRunner().invoke(cli, ["demo", "-o", "json"])
    assert done.exit_code == 1
    assert "capture: any backend: no backend works; install nftables" in done.output


def test_its_programs_load_nothing_of_ours() -> None:
    code = (
        "import sys; from ambient.demo import echo, get, policy, say\n"
        "print([m for m in sys.modules if m.startswith(('ambient.lab', 'ambient.cli', 'ztunnel', 'rich', 'click', 'trio'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
