"""``ambient demo`` as a user runs it: all checks pass, a fault is told, and nothing is left whatever ends it. Needs root."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ambient.demo.leftovers import end_demo, sweep
from ambient.demo.scene import BASE
from ambient.lab import Lab, LabUnknown
from ambient.lab.netns import NETNS_DIR
from ambient.lab.processes import find_marked
from ambient.lab.store import Store

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

AMBIENT = [sys.executable, "-m", "ambient.cli"]
DEMO = [*AMBIENT, "demo"]
ENV = {**os.environ, "PYTHONIOENCODING": "utf-8"}


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*DEMO, *words], capture_output=True, text=True, env=ENV, timeout=110, check=False)


def name_in(text: str) -> str:
    found = re.search(r"\bdemo-[0-9a-f]{4}\b", text)
    assert found, text
    return found[0]


def left_of(name: str) -> list[str]:
    """Namespaces, processes and files of a demo that are there."""
    names = [path.name for path in NETNS_DIR.iterdir() if path.name.startswith((f"amb-{name}-", f"amb-{name}."))]
    processes = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"AMBIENT_LAB={name}/".encode() in path.read_bytes():
                processes.append(path.parent.name)
        except OSError:
            continue
    files = [str(BASE / name)] if (BASE / name).exists() else []
    return [*names, *processes, *files, *[known for known in Store().names() if known == name]]


def test_all_checks_pass_and_nothing_is_left() -> None:
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    count = re.search(r"^(\d+) of (\d+) checks passed, in [\d.]+ s\.$", done.stdout, re.MULTILINE)
    assert count, done.stdout
    assert count[1] == count[2]
    assert done.stdout.count("   ✓ ") == int(count[2]) >= 45
    assert "✗" not in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
    assert left_of(name_in(done.stdout)) == []


def test_a_node_with_another_root_is_told_with_its_log_and_the_demo_goes_on() -> None:
    done = run("--break", "ca", "-o", "json")
    assert done.returncode == 1, done.stdout + done.stderr
    result = json.loads(done.stdout)
    name = name_in(done.stdout)
    try:
        assert result["passed"] < result["checks"]
        assert [step["title"] for step in result["steps"]][-1] == "The end"
        meshed = next(step for step in result["steps"] if step["title"] == "The same calls, meshed")
        call = meshed["checks"][0]
        assert not call["ok"]
        assert "Connection reset by peer" in call["seen"]
        assert "certificate" in call["seen"]
        assert "self-signed certificate in certificate chain" in Path(call["log"]).read_text()
        silent = next(check for check in meshed["checks"] if check["name"].startswith("on the wire"))
        assert silent["ok"], "a tunnel that fails must not become clear text"
        assert all(check["ok"] for check in result["steps"][-1]["checks"])
        assert {path.suffix for path in (BASE / name).iterdir()} == {".log"}
    finally:
        sweep()
    assert left_of(name) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_the_middle_it_cleans_up(number: signal.Signals) -> None:
    process = subprocess.Popen(
        DEMO,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**ENV, "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a test run in the background inherits SIGINT ignored
    )
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if line.startswith("3. "):
            break
    process.send_signal(number)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130, seen + rest
    assert "Traceback" not in rest
    assert "Stopped." in rest
    assert left_of(name_in(seen)) == []


@pytest.mark.parametrize("way", ["demo --end", "lab down"])
def test_kept_it_goes_on_until_it_is_ended(way: str) -> None:
    done = run("--keep", "-o", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    name = json.loads(done.stdout)["kept"]
    try:
        lab = Lab.attach(name)
        assert len(find_marked(lab.marker)) >= 6  # two agents, two proxies of two processes; and the servers
        words = [sys.executable, "-m", "ambient.demo.say", lab.pods["orders"].ipv4, "8080", "still here"]
        assert lab.pods["web"].run(words).stdout.endswith("server: still here\n")
        ended = subprocess.run([*AMBIENT, *way.split(), name], capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 0, ended.stderr
        sweep()  # the folder of a demo that `lab down` ended goes with the next demo
        assert left_of(name) == []
    finally:
        try:
            end_demo(name)
        except LabUnknown:
            sweep()
