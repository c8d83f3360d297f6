"""The demo on a terminal, or as plain text where there is none: colour, width and signs are decided here only."""

import sys

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from ambient.demo.record import Check, Command

__all__ = ["Report"]

_MAX_WIDTH = 100
_PLAIN_WIDTH = 500
"""Wide enough that nothing of a file or a pipe is wrapped or cut."""


class Report:
    """A listener that prints. ``colour`` False: no escape sequences even on a terminal."""

    def __init__(self, *, colour: bool = True) -> None:
        terminal = sys.stdout.isatty()
        self.terminal = terminal
        self._colour = colour and terminal
        if terminal:
            self.console = Console(highlight=False) if colour else Console(highlight=False, color_system=None, no_color=True)
            self._width = min(self.console.width, _MAX_WIDTH)
        else:
            self.console = Console(highlight=False, color_system=None, width=_PLAIN_WIDTH)
            self._width = _PLAIN_WIDTH
        self._whole = self.console.width
        encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
        self._good, self._bad, self._dots = ("✓", "✗", "…") if encoding.startswith("utf") else ("ok", "FAILED", "...")

    def line(self, text: str = "", style: str = "") -> None:
        """One paragraph, wrapped at the width."""
        self.console.print(Text(self._spelled(text), style=self._style(style)), width=self._whole, soft_wrap=False)

    def _spelled(self, text: str) -> str:
        return text if self._dots == "…" else text.replace("…", self._dots).encode("ascii", "replace").decode()

    def _style(self, style: str) -> str:
        return style if self._colour else ""

    def _cut(self, text: str) -> str:
        """Output of a command keeps its lines: what is beyond the terminal's edge is cut."""
        room = self._whole
        return text if len(text) <= room else text[: room - 1] + "…"

    def step(self, number: int, title: str, explanation: str) -> None:
        self.line()
        self.line(f"{number}. {title}", "bold cyan")
        self._hang("   ", explanation)

    def _hang(self, indent: str, text: str, style: str = "") -> None:
        """A paragraph whose later lines begin below its first."""
        wrapped = Text(text).wrap(self.console, self._width - len(indent))
        for row in wrapped:
            self.line(f"{indent}{row.plain.rstrip()}", style)

    def command(self, command: Command) -> None:
        self.line()
        # Never wrapped by us: a line that is copied must stay one line.
        shown = escape(f"   $ {command.text}")
        self.console.print(f"[bold]{shown}[/]" if self._colour else shown, soft_wrap=True)
        for text in command.output:
            self.line(self._cut(f"     {text}"), "dim")

    def note(self, text: str, lines: tuple[str, ...]) -> None:
        self.line()
        self._hang("   ", text)
        for row in lines:
            self.line(self._cut(f"     {row}"), "dim")

    def check(self, check: Check) -> None:
        if check.ok:
            sign, style = self._good, "green"
        else:
            sign, style = self._bad, "bold red"
        rows = Text(check.name).wrap(self.console, self._width - 5 - len(sign))
        for number, row in enumerate(rows):
            head = f"   {sign} " if number == 0 else " " * (4 + len(sign))
            if number == 0 and self._colour:
                self.console.print(Text.assemble("   ", (sign, style), " ", self._spelled(row.plain.rstrip())))
            else:
                self.line(f"{head}{row.plain.rstrip()}")
        if not check.ok:
            self._hang("       ", f"expected: {check.expected}")
            self._hang("       ", f"seen:     {check.seen}", "red")
            if check.log:
                self.line(f"       log:      {check.log}")
