"""The demo from its first line to its last: the order of the steps, and what is left behind. Called by ``ambient demo``.

A check that fails, or a step that breaks, is told and the next step goes on. Whatever ends the run, Ctrl-C, SIGTERM and SIGHUP
included, the lab, its processes and its files are taken away, unless they are to be kept.
"""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Final

from ambient.demo import leftovers, steps_fault, steps_policy, steps_view, steps_wire
from ambient.demo.record import Listener, Step
from ambient.demo.scene import Scene
from ambient.lab import LabError

__all__ = ["Demo", "Result"]

_Act = Callable[[Scene, Step], None]

CLEAR = ("Without the mesh: clear text", "web on node-a calls orders on node-b; all packets on node-a's uplink eth0 are captured.")
START = (
    "The mesh starts",
    "A ztunnel on each node; an agent redirects the running pods' traffic to it. None is restarted.",
)
STEPS: Final[tuple[tuple[str, str, _Act], ...]] = (
    (
        "The same calls, meshed",
        "Mutual TLS between the nodes, tunnelled on port 15008, without the pods' knowing.",
        steps_wire.meshed,
    ),
    (
        "Who talks to whom",
        "Each end is known by its service account, proved by certificate; logs and commands tell it.",
        steps_wire.identities,
    ),
    (
        "A policy refuses a client",
        "The server's node decides, and both ends can tell why.",
        steps_policy.refused,
    ),
    (
        "A policy change cuts a live connection",
        "What is no longer allowed ends at once, not at the next connect.",
        steps_policy.cut,
    ),
    ("Two pods of one node", "Nothing has to be encrypted within the node; policy holds all the same.", steps_policy.same_node),
    (
        "The control half dies",
        "ztunnel is two processes: the one that carries bytes does not need the other to go on.",
        steps_fault.control_killed,
    ),
    (
        "The whole ztunnel dies",
        "Captured pods are refused until it is back: nothing leaks in clear text.",
        steps_fault.proxy_killed,
    ),
    ("Looking into a proxy", "What `ztunnel` shows of the one that runs on a node, and its metrics.", steps_view.views),
)
END = ("The end", "Proxies, agents, pods and nodes are taken away, and what could be left is looked for.")


@dataclass(slots=True)
class Result:
    """``kept``: the lab's name when it still stands. ``interrupted``: by Ctrl-C or SIGTERM."""

    steps: list[Step] = field(default_factory=list)
    seconds: float = 0.0
    kept: str = ""
    interrupted: bool = False
    logs: str = ""
    """Where the logs of a run with failures are."""

    @property
    def passed(self) -> int:
        return sum(check.ok for step in self.steps for check in step.checks)

    @property
    def total(self) -> int:
        return sum(len(step.checks) for step in self.steps)

    @property
    def good(self) -> bool:
        return self.passed == self.total > 0 and not self.interrupted


class Demo:
    """One run. ``pause`` is called between steps; ``break_ca`` gives node-b another root, to see what failure looks like."""

    def __init__(
        self,
        listener: Listener,
        *,
        keep: bool = False,
        break_ca: bool = False,
        opened: Callable[[Scene], None] = lambda _: None,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        self._listener = listener
        self._keep = keep
        self._break_ca = break_ca
        self._opened = opened
        self._pause = pause
        self._result = Result()

    def run(self) -> Result:
        """Blocks until the end. Raises LabError when not even the lab can be built."""
        began = time.monotonic()
        before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
        try:
            self._run()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self._result.seconds = time.monotonic() - began
        return self._result

    def _run(self) -> None:
        leftovers.sweep()
        scene = Scene()
        try:
            self._opened(scene)
            self._play(scene)
        except KeyboardInterrupt:
            self._result.interrupted = True
        finally:
            with _Uninterrupted():
                self._finish(scene)

    def _play(self, scene: Scene) -> None:
        self._step(scene, *CLEAR, steps_wire.clear_text)
        self._pause()
        if not self._step(scene, *START, partial(steps_wire.start_mesh, break_ca=self._break_ca)):
            return
        for title, explanation, act in STEPS:
            self._pause()
            self._step(scene, title, explanation, act)

    def _step(self, scene: Scene, title: str, explanation: str, act: _Act) -> bool:
        """Whether the step came to its end, with failed checks or without."""
        step = self._new_step(title, explanation)
        began = time.monotonic()
        try:
            act(scene, step)
        except (LabError, OSError, subprocess.SubprocessError, AssertionError) as error:
            log = scene.log("node-a") if scene.meshed else scene.directory
            step.check("the step comes to its end", False, expected="no error", seen=str(error) or type(error).__name__, log=log)
            return False
        finally:
            step.seconds = time.monotonic() - began
        return True

    def _new_step(self, title: str, explanation: str) -> Step:
        step = Step(len(self._result.steps) + 1, title, explanation, self._listener)
        self._result.steps.append(step)
        step.begin()
        return step

    def _finish(self, scene: Scene) -> None:
        result = self._result
        if self._keep and not result.interrupted and scene.meshed:
            scene.shell.release()
            scene.lab.keep()
            result.kept = scene.lab.name
            return
        failed = result.passed < result.total
        step = self._new_step(*END)
        began = time.monotonic()
        scene.shell.close()
        scene.mesh.stop()
        # Before the lab's record goes: after it the name, and with it the folder, may be another demo's.
        if failed and not result.interrupted:
            leftovers.keep_logs(scene.directory)
            result.logs = str(scene.directory)
        else:
            shutil.rmtree(scene.directory)
        scene.lab.close()
        if not result.logs:
            leftovers.sweep()
        step.seconds = time.monotonic() - began
        self._check_left(scene, step)

    def _check_left(self, scene: Scene, step: Step) -> None:
        left = leftovers.look(scene.lab.state, scene.directory)
        logs = self._result.logs
        files = [name for name in left.files if not logs or not (name == logs or name.endswith(".log"))]
        names = len(scene.lab.state.netns_names())
        for what, found in (
            (f"all {names} network namespaces are gone", left.namespaces),
            ("no process is left", left.processes),
            (f"no file is left in {scene.directory}{' but the logs, as checks have failed' if logs else ''}", tuple(files)),
        ):
            step.check(what, not found, expected="nothing", seen=", ".join(found))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Uninterrupted:
    """Ctrl-C and the like are ignored within: cleaning up takes a second or two and must come to its end."""

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
