"""The process: signals, drain, exit status; with a control half that only keeps the link."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CODE = """
import sys
from ztunnel.dataplane import main, supervisor
child = '''
import socket, sys
link = socket.socket(fileno=int(sys.argv[2]))
link.send(bytes([0x91, 0x93, 0xac]) + b"ControlHello" + bytes([1, 2]))
print("ready", flush=True)
while link.recv(1 << 20):
    pass
print("gone", flush=True)
'''
real = supervisor.Supervisor.__init__
supervisor.Supervisor.__init__ = lambda self, world: real(self, world, [sys.executable, "-I", "-S", "-c", child])
sys.exit(main.main())
"""


@contextmanager
def running(**env: str) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(
        [sys.executable, "-c", CODE], env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_process_ends_at_once_and_well(number: signal.Signals) -> None:
    with running() as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "gone\n", "")
        assert time.monotonic() - began < 3


def test_a_bad_configuration_is_status_2_with_every_problem() -> None:
    with running(ADMIN_PORT="x", TERMINATION_GRACE_PERIOD_SECONDS="-") as process:
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (2, "")
        assert "ADMIN_PORT" in err
        assert "Traceback" not in err
