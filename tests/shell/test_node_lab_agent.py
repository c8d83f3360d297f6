"""The lab agent: follows its file, says what it does, ends as told."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from ambient.node import lab_agent
from ambient.node.enrol import PodCapture
from ambient.node.errors import PodsFileError
from ambient.node.pods_file import parse_pods
from capture.detect import BackendChoice
from capture.rules import CaptureConfig
from ztunnel.state.model import WorkloadInfo
from ztunnel.zds.seqpacket import PacketSocket

POD = {"uid": "a", "name": "p", "namespace": "ns", "service_account": "sa", "netns": "/proc/self/ns/net"}


def test_pods_file() -> None:
    pods = parse_pods(json.dumps([{**POD, "config": {"dns_capture": True, "virtual_interfaces": ["v0"]}}]).encode())
    assert pods["a"].info == WorkloadInfo("p", "ns", "sa")
    assert pods["a"].config == CaptureConfig(dns_capture=True, virtual_interfaces=("v0",))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a list of pods"),
        ("{}", "not a list of pods"),
        (json.dumps([{**POD, "color": "red"}]), "color"),
        (json.dumps([{k: v for k, v in POD.items() if k != "netns"}]), "netns"),
        (json.dumps([{**POD, "uid": 7}]), "uid"),
        (json.dumps([POD, POD]), "there twice"),
        (json.dumps([{**POD, "config": {"dns": True}}]), "no such field 'dns'"),
        (json.dumps([{**POD, "config": {"dns_capture": "yes"}}]), "config"),
        (json.dumps([{**POD, "config": {"virtual_interfaces": ["a b"]}}]), "interface name"),
    ],
)
def test_pods_files_that_are_refused(text: str, why: str) -> None:
    with pytest.raises(PodsFileError, match=why):
        parse_pods(text.encode())


async def test_follows_the_file_and_withdraws_on_exit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(lab_agent, "POLL", 0.01)
    monkeypatch.setattr(PodCapture, "apply", lambda self, netns, config: done.append("apply"))
    monkeypatch.setattr(PodCapture, "remove", lambda self, netns, config: done.append("remove"))
    send, receive = trio.open_memory_channel[tuple[str, dict[str, str]]](100)
    pods = tmp_path / "pods.json"
    pods.write_text(json.dumps([POD]))
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lab_agent.run, str(tmp_path / "s"), pods, BackendChoice.AUTO, True, lambda e, v: send.send_nowait((e, v))
            )
            assert await receive.receive() == ("listening", {"socket": str(tmp_path / "s")})
            event, values = await receive.receive()
            assert (event, values["uid"]) == ("pending", "a")
            pods.write_text("rubbish")
            event, values = await receive.receive()
            assert event == "pods_file_refused"
            assert "pods.json" in values["why"]
            assert done == ["apply"]
            pods.write_text(json.dumps([{**POD, "service_account": "other"}]))
            assert (await receive.receive())[0] == "withdrawn"
            assert (await receive.receive())[0] == "pending"
            assert done == ["apply", "remove", "apply"]
            pods.write_text("[]")
            assert (await receive.receive())[0] == "withdrawn"
            pods.write_text(json.dumps([POD]))
            assert (await receive.receive())[0] == "pending"
            os.kill(os.getpid(), signal.SIGTERM)
            assert (await receive.receive())[0] == "withdrawn"
            assert (await receive.receive())[0] == "stopped"
    assert done.count("apply") == done.count("remove") == 3


async def test_without_a_usable_file_no_proxy_is_told_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_agent, "POLL", 0.01)
    events: list[str] = []
    pods = tmp_path / "pods.json"
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            refused = trio.Event()

            def note(event: str, values: dict[str, str]) -> None:
                events.append(event)
                if event == "pods_file_refused":
                    refused.set()

            nursery.start_soon(lab_agent.run, str(tmp_path / "s"), pods, BackendChoice.AUTO, False, note)
            await refused.wait()
            proxy = await PacketSocket.connect(str(tmp_path / "s"))
            await proxy.send(b"\x08\x01")
            with trio.move_on_after(0.1) as quiet:
                await proxy.receive()
            assert quiet.cancelled_caught
            pods.write_text("[]")
            with await proxy.receive() as packet:
                assert packet.data == b"\x1a\x00"
            proxy.close()
            os.kill(os.getpid(), signal.SIGTERM)
    assert events == ["listening", "pods_file_refused", "stopped"]


def test_as_a_program(tmp_path: Path) -> None:
    pods = tmp_path / "pods.json"
    pods.write_text("[]")
    command = [sys.executable, "-m", "ambient.node.lab_agent", "--socket", str(tmp_path / "s"), "--pods", str(pods)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        assert json.loads(agent.stdout.readline())["event"] == "listening"
        second = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert second.returncode == 1
        assert "another agent listens there" in second.stderr
        agent.terminate()
        assert json.loads(agent.stdout.readline())["event"] == "stopped"
        assert agent.wait(10) == 0
    assert not (tmp_path / "s").exists()
