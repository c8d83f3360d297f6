"""The lab on real namespaces: wiring, isolation from the machine, and that nothing is left behind. Needs root."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ambient.lab import (
    Lab,
    LabBroken,
    LabBusy,
    LabCommandFailed,
    LabSpec,
    LabSpecError,
    LabUnknown,
    LabUnsupported,
    NodeSpec,
    Place,
    Pod,
    PodSpec,
)
from ambient.lab.netns import NETNS_DIR, entered
from ambient.lab.processes import end_marked, find_marked
from ambient.lab.removal import remove, remove_stale
from ambient.lab.store import Store

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

AMBIENT = [sys.executable, "-m", "ambient.cli"]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.create(LabSpec.simple(nodes=2, pods=2)) as made:
        yield made


def talk(source: Place, target: Place, address: str, payload: bytes = b"x") -> str:
    """One TCP connection to ``address`` of ``target``; the source address that the listener saw."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with target.socket(family) as listener, source.socket(family) as client:
        listener.bind((address, 0))
        listener.listen()
        client.settimeout(5)
        client.connect(listener.getsockname()[:2])
        connection, peer = listener.accept()
        with connection:
            connection.settimeout(5)
            client.sendall(payload)
            assert connection.recv(len(payload), socket.MSG_WAITALL) == payload
        return str(peer[0])


def addresses(pod: Pod) -> list[str]:
    assert pod.ipv6 is not None
    return [pod.ipv4, pod.ipv6]


def left_of(name: str) -> list[str]:
    found = [path.name for path in NETNS_DIR.iterdir() if path.name.startswith((f"amb-{name}-", f"amb-{name}."))]
    return found + [known for known in Store().names() if known == name]


def until(condition: Callable[[], bool], seconds: float = 5) -> bool:
    """Wait for the kernel to finish what has no event of its own."""
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return met


@pytest.mark.parametrize("target", ["pod-1-2", "pod-2-1"], ids=["same node", "other node"])
def test_pod_reaches_pod_from_its_own_address(lab: Lab, target: str) -> None:
    source = lab.pods["pod-1-1"]
    for ours, theirs in zip(addresses(source), addresses(lab.pods[target]), strict=True):
        assert talk(source, lab.pods[target], theirs) == ours


def test_node_reaches_its_pods_and_the_other_nodes_from_its_underlay_address(lab: Lab) -> None:
    node = lab.nodes["node-1"]
    for pod in lab.pods.values():
        for ours, theirs in zip([node.underlay_ipv4, node.underlay_ipv6], addresses(pod), strict=True):
            assert talk(node, pod, theirs) == ours


def test_pod_reaches_its_node_and_the_other(lab: Lab) -> None:
    pod = lab.pods["pod-1-1"]
    for node in lab.nodes.values():
        assert node.underlay_ipv6 is not None
        assert talk(pod, node, node.underlay_ipv4) == pod.ipv4
        assert talk(pod, node, node.underlay_ipv6) == pod.ipv6


def test_an_address_nobody_has_is_not_reached(lab: Lab) -> None:
    with lab.pods["pod-1-1"].socket() as client:
        client.settimeout(0.3)
        with pytest.raises(OSError, match=r"timed out|unreachable|No route"):
            client.connect(("10.12.0.99", 80))


def test_pod_is_wired_as_a_cni_does_it(lab: Lab) -> None:
    pod = lab.pods["pod-1-1"]
    (eth0,) = [link for link in json.loads(pod.run(["ip", "-j", "address"]).stdout) if link["ifname"] == "eth0"]
    assert {(a["local"], a["prefixlen"]) for a in eth0["addr_info"] if a["scope"] == "global"} == {
        ("10.11.0.1", 32),
        ("fd00:10:1::1", 128),
    }
    assert not [a for a in eth0["addr_info"] if a.get("tentative")]
    assert "default via 169.254.1.1 dev eth0" in pod.run(["ip", "route"]).stdout
    assert "default via fe80::1 dev eth0" in pod.run(["ip", "-6", "route"]).stdout
    assert pod.sysctl("net.ipv4.conf.eth0.rp_filter") == "0"
    assert lab.nodes["node-1"].sysctl("net.ipv4.ip_forward") == "1"
    assert lab.nodes["node-1"].sysctl("net/ipv6/conf/all/forwarding") == "1"
    assert pod.sysctl("net.ipv4.ip_forward") == "0"


def test_transparent_source_address_works_inside_a_pod(lab: Lab) -> None:
    """What the proxy does inbound: dial the pod's application from the client's address."""
    pod, client = lab.pods["pod-2-1"], lab.pods["pod-1-1"]
    pod.run(["ip", "rule", "add", "fwmark", "0x111/0xfff", "pref", "32764", "lookup", "100"])
    pod.run(["ip", "route", "add", "local", "default", "dev", "lo", "table", "100"])
    with pod.socket() as listener, pod.socket() as dialled:
        # Without connmark rules both directions are steered by the sockets' own mark, which the answer takes over.
        pod.set_sysctl("net.ipv4.tcp_fwmark_accept", 1)
        for sock in (listener, dialled):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x111)
        listener.bind((pod.ipv4, 0))
        listener.listen()
        dialled.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT
        dialled.bind((client.ipv4, 0))
        dialled.settimeout(5)
        dialled.connect(listener.getsockname())
        connection, peer = listener.accept()
        connection.close()
        assert peer[0] == client.ipv4


def test_sysctl_of_a_pod_is_not_the_machines(lab: Lab) -> None:
    before = Path("/proc/sys/net/ipv4/ip_default_ttl").read_text()
    lab.pods["pod-1-1"].set_sysctl("net.ipv4.ip_default_ttl", 33)
    assert lab.pods["pod-1-1"].sysctl("net.ipv4.ip_default_ttl") == "33"
    assert lab.pods["pod-1-2"].sysctl("net.ipv4.ip_default_ttl") != "33"
    assert Path("/proc/sys/net/ipv4/ip_default_ttl").read_text() == before
    with pytest.raises(LabUnknown, match="no_such"):
        lab.pods["pod-1-1"].sysctl("net.ipv4.no_such")
    for outside in ("kernel.hostname", "net/../kernel/hostname", "net"):
        with pytest.raises(LabSpecError):
            lab.pods["pod-1-1"].sysctl(outside)


def test_enter_moves_one_thread_and_brings_it_back(lab: Lab) -> None:
    def here() -> int:
        return os.stat("/proc/thread-self/ns/net").st_ino

    home, pod, node = here(), lab.pods["pod-1-1"], lab.nodes["node-1"]
    with pod.enter():
        assert here() == os.stat(pod.netns).st_ino
        elsewhere: list[int] = []
        with node.enter():
            assert here() == os.stat(node.netns).st_ino
        assert here() == os.stat(pod.netns).st_ino
        assert os.stat("/proc/self/ns/net").st_ino == os.stat(pod.netns).st_ino
    thread = threading.Thread(target=lambda: elsewhere.append(here()))
    thread.start()
    thread.join()
    assert elsewhere == [home]
    with pytest.raises(ZeroDivisionError), pod.enter():
        raise ZeroDivisionError
    assert here() == home


def test_a_thread_that_cannot_come_back_ends_the_process(lab: Lab) -> None:
    code = (
        "import ambient.lab.netns as n, pathlib, sys, resource\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "real, calls = n._setns, []\n"
        "def once(fd):\n"
        "    calls.append(fd)\n"
        "    if len(calls) == 2: raise OSError(1, 'no')\n"
        "    real(fd)\n"
        "n._setns = once\n"
        "with n.entered(pathlib.Path(sys.argv[1])): pass\n"
        "print('went on')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(lab.pods["pod-1-1"].netns)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGABRT
    assert "fatal: cannot leave" in done.stderr
    assert "went on" not in done.stdout


def test_what_is_no_namespace_cannot_be_entered(tmp_path: Path) -> None:
    for path in (tmp_path / "gone", tmp_path):
        with pytest.raises(LabUnknown), entered(path):
            pass


def test_run_gives_output_status_and_input(lab: Lab) -> None:
    pod = lab.pods["pod-1-1"]
    assert pod.run(["cat"], input="häl\n").stdout == "häl\n"
    assert pod.run(["sh", "-c", "exit 3"], check=False).returncode == 3
    with pytest.raises(LabCommandFailed, match="what went wrong"):
        pod.run(["sh", "-c", "echo what went wrong >&2; exit 1"])
    with pytest.raises(FileNotFoundError):
        pod.run(["no-such-command"])
    with pytest.raises(LabSpecError):
        pod.popen("true")


def test_run_kills_at_its_timeout_with_children(lab: Lab) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        lab.pods["pod-1-1"].run(["sh", "-c", "sleep 100 & wait"], timeout=0.2)
    assert until(lambda: find_marked(lab.marker) == [])


def test_ip_netns_exec_works_by_name(lab: Lab) -> None:
    pod = lab.pods["pod-2-2"]
    done = subprocess.run(["ip", "netns", "exec", pod.netns_name, "ip", "-br", "address"], capture_output=True, text=True)
    assert pod.ipv4 in done.stdout


def test_sniff_shows_what_is_on_the_wire_between_nodes(lab: Lab) -> None:
    node, a, b = lab.nodes["node-1"], lab.pods["pod-1-1"], lab.pods["pod-2-1"]
    with lab.sniff(node, node.uplink, "tcp") as wire:
        for address in addresses(b):
            talk(a, b, address, b"clear text " + address.encode())
    assert b"clear text 10.12.0.1" in wire.payload
    assert "clear text fd00:10:2::1" in wire.text
    assert wire.dropped == 0
    assert wire.pcap[:4] == bytes.fromhex("4d3cb2a1")
    with lab.sniff(node, node.uplink, "udp") as wire, lab.sniff(node, node.uplink) as everything:
        talk(a, b, b.ipv4, b"not udp")
        talk(a, lab.pods["pod-1-2"], lab.pods["pod-1-2"].ipv4, b"stays on the node")
    assert wire.frames == ()
    assert b"not udp" in everything.payload
    assert b"stays on the node" not in everything.payload


def test_sniff_refuses_bad_filter_and_interface(lab: Lab) -> None:
    with pytest.raises(LabSpecError, match="refuses the filter"), lab.sniff(lab.nodes["node-1"], "eth0", "tcp porridge"):
        pass
    with pytest.raises(LabUnknown, match="'eth7'"), lab.sniff(lab.nodes["node-1"], "eth7"):
        pass


def test_pods_come_and_go(lab: Lab) -> None:
    first = lab.pods["pod-1-1"]
    for _ in range(3):  # the link's name and the address are taken again at once
        pod = lab.add_pod("node-2", PodSpec("extra", "shop", "buyer", index=9))
        assert (pod.ipv4, pod.uid, pod.service_account) == ("10.12.0.9", "Kubernetes//Pod/shop/extra", "buyer")
        assert lab.nodes["node-2"].pods["extra"] is pod
        assert Lab.attach(lab.name).pods["extra"].ipv6 == pod.ipv6 == "fd00:10:2::9"
        for ours, theirs in zip(addresses(first), addresses(pod), strict=True):
            assert talk(first, pod, theirs) == ours
        process = pod.popen(["sleep", "100"])
        lab.remove_pod("extra")
        assert process.wait(5) == -signal.SIGTERM
        assert not pod.netns.exists()
        assert "extra" not in lab.pods
        with pytest.raises(LabUnknown):
            pod.run(["true"])
    assert "veth9" not in lab.nodes["node-2"].run(["ip", "-br", "link"]).stdout
    with pytest.raises(LabBusy):
        lab.add_pod("node-2", PodSpec("pod-1-1"))
    with pytest.raises(LabUnknown):
        lab.remove_pod("extra")


def test_two_labs_at_once_have_equal_addresses_and_do_not_meet(lab: Lab) -> None:
    with Lab.create(LabSpec.simple(nodes=2, pods=2)) as other:
        assert other.name != lab.name
        mine, theirs = lab.pods["pod-2-1"], other.pods["pod-2-1"]
        assert mine.ipv4 == theirs.ipv4
        with mine.socket() as listener:
            listener.bind((mine.ipv4, 4321))
            listener.listen()
            with other.pods["pod-1-1"].socket() as client:
                client.settimeout(5)
                with pytest.raises(ConnectionRefusedError):
                    client.connect((theirs.ipv4, 4321))
        assert talk(other.pods["pod-1-1"], theirs, theirs.ipv4) == "10.11.0.1"


def test_many_labs_made_at_once() -> None:
    made: list[Lab] = []
    threads = [threading.Thread(target=lambda: made.append(Lab.create(LabSpec.simple(1, 1)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.name for one in made}) == 4
    for one in made:
        one.close()
        assert left_of(one.name) == []


def test_a_name_is_taken_once(lab: Lab) -> None:
    with pytest.raises(LabBusy, match="already"):
        Lab.create(LabSpec.simple(1, 0, name=lab.name))
    # Another name, but namespaces of the same name: amb-<lab>-node-1-pod-1-1.
    with pytest.raises(LabBusy, match="namespace"):
        Lab.create(LabSpec((NodeSpec("pod-1-1"),), name=f"{lab.name}-node-1"))
    assert talk(lab.pods["pod-1-1"], lab.pods["pod-1-2"], "10.11.0.2") == "10.11.0.1"


def test_without_ipv6_there_is_none() -> None:
    with Lab.create(LabSpec.simple(2, 1, ipv6=False)) as made:
        pod = made.pods["pod-1-1"]
        assert pod.ipv6 is None
        assert pod.run(["ip", "-6", "address"]).stdout == ""
        assert talk(pod, made.pods["pod-2-1"], "10.12.0.1") == "10.11.0.1"


def test_missing_ipv6_is_an_error_and_not_a_smaller_lab(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: False if str(path) == "/proc/sys/net/ipv6" else real(path))
    with pytest.raises(LabUnsupported, match="no IPv6"):
        Lab.create(LabSpec.simple(1, 1))


def machine() -> dict[str, str]:
    """All that a lab might have changed outside of its namespaces."""
    commands = {
        "links": "ip -o link",
        "addresses": "ip -o address",
        "rules": "ip rule; ip -6 rule",
        "routes": "ip route show table all; ip -6 route show table all",
        "nft": "nft list ruleset 2>&1",
        "iptables": "iptables-legacy-save 2>&1 | grep -v '^#'; ip6tables-legacy-save 2>&1 | grep -v '^#'",
        "sysctls": "sysctl -a 2>/dev/null | grep -E '^net\\.(ipv4\\.(conf|ip_)|ipv6\\.conf|bridge)'",
    }
    seen = {what: subprocess.run(["sh", "-c", line], capture_output=True, text=True).stdout for what, line in commands.items()}
    # Seconds until an address or route of the machine's own expires.
    return {what: re.sub(r"(valid_lft|preferred_lft|expires) \S+", r"\1", text) for what, text in seen.items()}


def test_the_machine_is_not_changed_nor_even_touched() -> None:
    before = machine()
    assert before["links"]
    monitor = subprocess.Popen(["ip", "monitor", "link", "address"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        # The monitor listens once its socket is bound to the groups.
        assert until(lambda: b"socket:" in b"".join(os.readlink(p).encode() for p in Path(f"/proc/{monitor.pid}/fd").iterdir()))
        with Lab.create(LabSpec.simple(nodes=2, pods=2)) as made:
            during = machine()
            made.remove_pod("pod-1-1")
        after = machine()
        assert monitor.stdout is not None
        events = os.read(monitor.stdout.fileno(), 9999) if select.select([monitor.stdout], [], [], 0)[0] else b""
    finally:
        monitor.terminate()
        monitor.communicate()
    assert during == before
    assert after == before
    assert b"veth" not in events
    assert b"br0" not in events
    assert left_of(made.name) == []


def test_close_ends_what_the_lab_started_and_nothing_else() -> None:
    made = Lab.create(LabSpec.simple(1, 1))
    pod = made.pods["pod-1-1"]
    polite = pod.popen(["sleep", "100"], stdout=subprocess.PIPE)
    deaf = pod.popen(
        [sys.executable, "-c", "import signal,time; signal.signal(15, 1); print(1, flush=True); time.sleep(100)"], stdout=-1
    )
    orphan = pod.run(["sh", "-c", "setsid sleep 100 >/dev/null 2>&1 & echo $!"])
    assert deaf.stdout is not None
    assert deaf.stdout.readline() == b"1\n"
    stranger = subprocess.Popen(["nsenter", f"--net={pod.netns}", "--", "sleep", "100"])
    try:
        made.close(grace=0.3)
        assert polite.returncode == -signal.SIGTERM
        assert deaf.returncode == -signal.SIGKILL
        assert not Path(f"/proc/{int(orphan.stdout)}/environ").exists() or not find_marked(made.marker)
        assert stranger.poll() is None
        assert left_of(made.name) == []
    finally:
        stranger.kill()
        stranger.wait()
    made.close()
    with pytest.raises(LabBusy, match="closed"):
        pod.run(["true"])


def test_failed_creation_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ambient.lab.plan.pod_batch", lambda state, pod: ["link set lo up", "link set eth9 up"])
    name = f"halfway{os.getpid()}"
    with pytest.raises(LabBroken, match=rf"`ip link set eth9 up` in amb-{name}-node-1-pod-1-1: .*eth9"):
        Lab.create(LabSpec.simple(1, 1, name=name))
    assert left_of(name) == []


OWNER = """
import sys, time
from ambient.lab import Lab, LabSpec
lab = Lab.create(LabSpec.simple(2, 1))
child = lab.pods["pod-1-1"].popen(["sh", "-c", "setsid sleep 100 & exec sleep 100"])
print(lab.name, lab.marker, flush=True)
time.sleep(100)
"""


@pytest.fixture
def killed_owner() -> Iterator[tuple[str, str]]:
    """Name and marker of a lab whose owner was killed, its processes and namespaces left.

    Any other run on this machine may sweep it away from now on, so that it is there is asserted before the kill.
    """
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    name, marker = owner.stdout.readline().split()
    try:
        assert until(lambda: len(find_marked(marker)) == 2)
        remove_stale(Store())
        assert len(left_of(name)) == 6  # a live owner's lab is no leftover: 5 namespaces and the state file
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()  # the processes it left still hold the other end
    yield name, marker
    end_marked(marker, grace=0)


def test_leftovers_of_a_killed_owner_are_removed_by_the_next_lab(killed_owner: tuple[str, str]) -> None:
    name, marker = killed_owner
    with Lab.create(LabSpec.simple(1, 0)):
        assert find_marked(marker) == []
        assert left_of(name) == []


def test_leftovers_without_a_state_file_are_found_too(killed_owner: tuple[str, str]) -> None:
    name, marker = killed_owner
    Store().delete(name)
    remove_stale(Store())
    assert left_of(name) == []
    assert find_marked(marker) == []


def test_a_namespace_of_somebody_else_is_no_leftover() -> None:
    foreign = f"amb-foreign{os.getpid()}-node"
    subprocess.run(["ip", "netns", "add", foreign], check=True)
    try:
        remove_stale(Store())
        assert (NETNS_DIR / foreign).exists()
    finally:
        subprocess.run(["ip", "netns", "delete", foreign], check=True)


def test_a_lab_of_a_live_owner_is_removed_only_by_force() -> None:
    with Lab.create(LabSpec.simple(1, 1)) as made:
        with pytest.raises(LabBusy, match=str(os.getpid())):
            remove(Store(), made.name)
        remove(Store(), made.name, force=True)
        assert left_of(made.name) == []
        with Lab.create(LabSpec.simple(1, 0, name=made.name)) as successor:
            made.close()  # not its lab any more
            assert successor.nodes["node-1"].run(["true"]).returncode == 0


def test_a_forked_child_does_not_close_its_parents_lab(lab: Lab) -> None:
    pid = os.fork()
    if pid == 0:
        lab.close()
        os._exit(0)
    os.waitpid(pid, 0)
    assert talk(lab.pods["pod-1-1"], lab.pods["pod-1-2"], "10.11.0.2") == "10.11.0.1"


def test_two_nodes_with_four_pods_are_up_quickly() -> None:
    started = time.monotonic()
    with Lab.create(LabSpec.simple(2, 4)):
        assert time.monotonic() - started < 2


# --- the command -----------------------------------------------------------------------------------------------------------


def ambient(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*AMBIENT, "lab", *words], capture_output=True, text=True, timeout=30)


@pytest.fixture
def kept() -> Iterator[str]:
    name = f"kept-{os.getpid()}"
    up = ambient("up", "--name", name, "--nodes", "2", "--pods", "1", "-o", "json")
    assert up.returncode == 0, up.stderr
    assert [node["pods"][0]["ipv4"] for node in json.loads(up.stdout)["nodes"]] == ["10.11.0.1", "10.12.0.1"]
    yield name
    ambient("down", name)


def test_exec_ends_with_the_commands_status(kept: str) -> None:
    assert ambient("exec", f"{kept}/pod-1-1", "--", "sh", "-c", "exit 7").returncode == 7
    shown = ambient("exec", f"{kept}/node-2", "--", "ip", "-br", "address")
    assert "172.30.0.2/16" in shown.stdout
    assert ambient("exec", f"{kept}/pod-1-1", "ip", "-br", "link").stdout.count("eth0") == 1
    assert ambient("exec", f"{kept}/pod-1-1", "--", "no-such-command").returncode == 127
    assert ambient("exec", f"{kept}/pod-1-1", "--", "/etc/passwd").returncode == 126
    missing = ambient("exec", f"{kept}/nobody", "--", "true")
    assert (missing.returncode, "Remedy: it has node-1" in missing.stderr) == (1, True)
    assert ambient("exec", "nosuch/pod-1-1", "--", "true").returncode == 1


def test_kept_lab_stands_until_it_is_taken_down(kept: str) -> None:
    with Lab.create(LabSpec.simple(1, 0)):  # sweeps leftovers
        pass
    assert ambient("down", "--stale").returncode == 0
    (listed,) = [one for one in json.loads(ambient("list", "-o", "json").stdout) if one["name"] == kept]
    assert listed["status"] == "kept"
    assert f"amb-{kept}-node-1-pod-1-1" in ambient("list").stdout
    again = ambient("up", "--name", kept)
    assert (again.returncode, "already" in again.stderr) == (1, True)
    shell = subprocess.Popen([*AMBIENT, "lab", "exec", f"{kept}/pod-1-1", "--", "sh", "-c", "echo up; exec sleep 100"], stdout=-1)
    assert shell.stdout is not None
    assert shell.stdout.readline() == b"up\n"
    assert ambient("down", kept).returncode == 0
    assert shell.wait(5) == -signal.SIGTERM
    shell.stdout.close()
    assert left_of(kept) == []
    gone = ambient("down", kept)
    assert (gone.returncode, "Remedy" in gone.stderr) == (1, True)


def test_list_tells_a_broken_state_file(kept: str) -> None:
    path = Store().directory / f"broken{os.getpid()}.json"
    path.write_text('{"version": 2}')
    try:
        shown = ambient("list", "-o", "json")
        assert shown.returncode == 1
        assert f"lab 'broken{os.getpid()}' is not readable" in shown.stderr
        assert kept in [one["name"] for one in json.loads(shown.stdout)]
        with Lab.create(LabSpec.simple(1, 0)) as made:  # one bad file keeps nobody from working
            assert made.name
    finally:
        path.unlink()
