"""ambient.cli: the group loads nothing for --help, and wrong use ends with status 2 before anything is made."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from ambient.cli import VERBS, cli


def test_help_lists_every_verb_and_imports_none() -> None:
    code = (
        "import sys; from ambient.cli import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print([m for m in sys.modules if m.startswith(('ambient.cli.', 'ambient.lab', 'msgspec', 'rich', 'pyroute2'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for verb, line in VERBS.items():
        assert verb in done.stdout
        assert line.split(",")[0] in done.stdout


def test_verbs_are_in_order() -> None:
    assert list(VERBS) == sorted(VERBS)


@pytest.mark.parametrize(
    "words",
    [
        ["nosuch"],
        ["lab", "nosuch"],
        ["lab", "up", "--nodes", "0"],
        ["lab", "up", "--name", "../x"],
        ["lab", "down"],
        ["lab", "down", "x", "--all"],
        ["lab", "exec", "x/y"],
        ["lab", "exec", "x/y", "--"],
        ["lab", "exec", "x", "--", "true"],
        ["completion", "tcsh"],
    ],
)
def test_wrong_use_ends_with_2(words: list[str]) -> None:
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 2, done.output
    assert "Error: " in done.output


@pytest.mark.parametrize("words", [["lab"], ["lab", "up"], ["lab", "down"], ["lab", "exec"], ["completion"]])
def test_help_has_examples(words: list[str]) -> None:
    done = CliRunner().invoke(cli, [*words, "--help"])
    assert done.exit_code == 0
    assert "Examples:" in done.output
    assert "  ambient " in done.output or "  source <(ambient " in done.output


def test_without_root_rights_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    done = CliRunner().invoke(cli, ["lab", "up"])
    assert done.exit_code == 1
    assert "root rights" in done.output
    assert "Remedy: run it with sudo" in done.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_names_the_command(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0
    assert "_AMBIENT_COMPLETE" in done.output


def test_completion_of_verbs() -> None:
    ctx = cli.make_context("ambient", ["lab"], resilient_parsing=True)
    assert [item.value for item in cli.shell_complete(ctx, "c")] == ["check", "completion"]
