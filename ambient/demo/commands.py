"""Running the commands that the demo shows: the words shown are the words run, found in the folder of this Python.

Used by the scene. Programs of the project are found by PATH, whose first folder is that of the interpreter; the hint at the demo's
start says so where the user's own PATH differs.
"""

import os
import queue
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ambient.demo.record import Command, Step

__all__ = ["Held", "Shell"]

_SECONDS = 20.0
_GRACE = 2.0


class Shell:
    """Runs commands for a step. ``marker``: (name, value) of the variable that marks the lab's processes."""

    def __init__(self, marker: tuple[str, str]) -> None:
        self._bin = Path(sys.executable).parent
        path = os.environ.get("PATH", os.defpath)
        self.env = {**os.environ, "PATH": f"{self._bin}{os.pathsep}{path}", marker[0]: marker[1], "PYTHONUNBUFFERED": "1"}
        self._held: list[Held] = []

    @property
    def hint(self) -> str:
        """What to type first in another terminal so that the shown commands work there; "" if nothing."""
        if shutil.which("ambient") == str(self._bin / "ambient"):
            return ""
        return f"export PATH={shlex.quote(str(self._bin))}:$PATH"

    def words(self, program: str) -> list[str]:
        """How to call ``ambient``, ``ztunnel`` or ``python`` by name."""
        if program == "python":
            return [Path(sys.executable).name]
        if (self._bin / program).exists():
            return [program]
        return [Path(sys.executable).name, "-m", f"{program}.cli"]

    def run(self, words: Sequence[str], step: Step | None = None, *, show: Callable[[str], Sequence[str]] | None = None) -> str:
        """Run to the end; what it said on both outputs. ``show`` picks of that what the reader gets, default all of it."""
        try:
            done = subprocess.run(
                words, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                errors="replace", timeout=_SECONDS, check=False,
            )  # fmt: skip
            output, status = done.stdout, done.returncode
        except subprocess.TimeoutExpired:
            output, status = f"no end within {_SECONDS:.0f} s: killed", -9
        if step is not None:
            shown = output.splitlines() if show is None else show(output)
            step.ran(Command(shlex.join(words), status, tuple(shown)))
        return output

    def hold(self, words: Sequence[str]) -> "Held":
        """Start a command that goes on."""
        held = Held(words, self.env)
        self._held.append(held)
        return held

    def close(self) -> None:
        """End what still runs of the held ones."""
        for held in self._held:
            held.end()
        self._held.clear()

    def release(self) -> None:
        """Let the held ones go on without us."""
        self._held.clear()


class Held:
    """A command that goes on: its lines are read as they come, its standard input is ours."""

    def __init__(self, words: Sequence[str], env: dict[str, str]) -> None:
        self.text = shlex.join(words)
        self.lines: list[str] = []
        self._new: queue.SimpleQueue[tuple[float, str] | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True, bufsize=1,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, name="demo-held", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._new.put((time.time(), line.rstrip("\n")))
        self._new.put(None)

    def wait_line(self, needle: str, seconds: float = 5.0) -> tuple[float, str]:
        """(Unix time, line) of the next line with ``needle`` in it; (0, "") when there is none in time or it ended."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                got = self._new.get(timeout=left)
            except queue.Empty:
                break
            if got is None:
                self._new.put(None)
                break
            self.lines.append(got[1])
            if needle in got[1]:
                return got
        return 0.0, ""

    def say(self, line: str) -> None:
        """Send a line to its standard input; nothing happens when it has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except OSError:
            return

    @property
    def last(self) -> str:
        """The last line it said, as far as it was waited for."""
        return self.lines[-1] if self.lines else "nothing was said"

    def end(self) -> None:
        """SIGTERM, then SIGKILL; reaped and its pipes closed."""
        self._process.terminate()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_GRACE)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue
