"""ambient.demo.record and report: what is kept, and how it reads as plain text and on a terminal."""

import io
import sys

import pytest

from ambient.demo.record import Check, Command, Quiet, Step, to_plain
from ambient.demo.report import Report


class Output(io.TextIOWrapper):
    def __init__(self, *, terminal: bool, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def text(self) -> str:
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


def play(monkeypatch: pytest.MonkeyPatch, output: Output, *, colour: bool = True) -> str:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", output)
    step = Step(1, "Title", "One line that explains what is going to be shown in this very step.", Report(colour=colour))
    step.begin()
    step.ran(Command("run me [x] --with " + "a" * 60, 0, ("short", "long " * 20)))
    step.note("a note", "its line")
    step.check("good", True, expected="a", seen="a")
    step.check("bad", False, expected="a", seen="b", log="/there")
    return output.text


def test_plain_text_has_no_escapes_and_cuts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    text = play(monkeypatch, Output(terminal=False))
    assert "\x1b" not in text
    assert "   $ run me [x] --with " + "a" * 60 + "\n     short\n" in text
    assert ("long " * 20).strip() in text
    assert "   ✓ good\n   ✗ bad\n       expected: a\n       seen:     b\n       log:      /there\n" in text


def test_a_terminal_gets_colour_and_nothing_but_commands_is_wider(monkeypatch: pytest.MonkeyPatch) -> None:
    text = play(monkeypatch, Output(terminal=True))
    assert "\x1b[32m✓" in text
    plain = play(monkeypatch, Output(terminal=True), colour=False)
    assert "\x1b" not in plain
    assert [line for line in plain.splitlines() if len(line) > 60] == ["   $ run me [x] --with " + "a" * 60]
    assert "     " + ("long " * 20)[:54] + "…\n" in plain


def test_an_ascii_output_gets_words_for_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    text = play(monkeypatch, Output(terminal=False, encoding="ascii"))
    assert "   ok good\n   FAILED bad\n" in text


def test_the_result_counts_what_was_checked() -> None:
    step = Step(1, "Title", "Why.", Quiet())
    step.begin()
    step.ran(Command("true", 0, ()))
    step.note("x")
    assert step.check("good", True, expected="a", seen="a")
    assert not step.check("bad", False, expected="a", seen="b", log="/there")
    plain = to_plain([step], 1.234)
    assert (plain["passed"], plain["checks"], plain["seconds"]) == (1, 2, 1.23)
    assert step.checks[1] == Check("bad", False, "a", "b", "/there")
