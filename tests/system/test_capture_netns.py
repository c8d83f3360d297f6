"""Entry into network namespaces: who is where, before, during and after."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from capture.errors import CommandFailedError, NetnsError
from capture.netns import call_in_netns, entered, identity, run_in_netns, scratch_netns


@pytest.fixture
def netns() -> Iterator[int]:
    with scratch_netns() as fd:
        yield fd


def test_a_function_runs_there_and_the_caller_stays_here(netns: int) -> None:
    home = identity()
    there = identity(netns)
    assert there != home
    assert call_in_netns(netns, identity) == there
    assert call_in_netns(f"/proc/self/fd/{netns}", identity) == there
    assert identity() == home


def test_a_command_starts_there(netns: int) -> None:
    done = run_in_netns(netns, ["stat", "-Lc", "%i", "/proc/self/ns/net"])
    assert int(done.stdout) == identity(netns).ino
    assert run_in_netns(netns, ["cat"], data=b"x" * 300_000).stdout == b"x" * 300_000


def test_an_exception_comes_back_whole(netns: int) -> None:
    with pytest.raises(ZeroDivisionError):
        call_in_netns(netns, lambda: 1 // 0)


def test_a_thread_enters_and_returns(netns: int) -> None:
    seen: list[object] = []

    def work() -> None:
        home = identity()
        try:
            with entered(netns):
                seen.append(identity() == identity(netns))
                raise LookupError
        except LookupError:
            seen.append(identity() == home)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True, True]


def test_a_thread_that_cannot_return_ends_the_process() -> None:
    program = """
import capture.netns as n
with n.scratch_netns() as there:
    with n.entered(there):
        n._libc = type("Broken", (), {"setns": staticmethod(lambda *a: -1)})
print("still alive")
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert "cannot leave the network namespace" in done.stderr
    assert "still alive" not in done.stdout


def test_what_cannot_be_entered_is_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(NetnsError, match="has the pod ended"):
        call_in_netns(tmp_path / "absent", identity)
    with pytest.raises(NetnsError, match="is the path or descriptor a network namespace"):
        call_in_netns("/proc/self/ns/mnt", identity)
    with pytest.raises(NetnsError, match="no network namespace"):
        identity(1 << 20)


def test_commands_that_do_not_end_or_start_are_errors(netns: int) -> None:
    with pytest.raises(CommandFailedError, match="killed"):
        run_in_netns(netns, ["sleep", "60"], timeout=0.05)
    with pytest.raises(CommandFailedError, match="cannot be run"):
        run_in_netns(netns, ["/does/not/exist"])


def test_a_scratch_netns_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with scratch_netns() as fd:
            call_in_netns(fd, lambda: None)
    assert len(os.listdir("/proc/self/fd")) == before
