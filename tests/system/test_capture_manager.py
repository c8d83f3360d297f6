"""Apply, verify, repair and remove in real network namespaces, by every backend; and what is left when a change fails."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from capture.command import Tools
from capture.detect import BackendChoice
from capture.errors import CaptureFailedError, NetnsError
from capture.manager import Applied, apply, remove, repair, verify
from capture.rules import CaptureConfig
from capture.snapshot import Drift
from tests.system.capture_netns import Netns, Pair, dropped, pair_of_pods, refused

NFT, IPTABLES, LEGACY = BackendChoice.NFTABLES, BackendChoice.IPTABLES_NFT, BackendChoice.IPTABLES_LEGACY
BACKENDS = [NFT, IPTABLES, LEGACY]
FAMILIES = [socket.AF_INET, socket.AF_INET6]
CONFIG = CaptureConfig(dns_capture=True)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with pair_of_pods() as made:
        yield made


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> BackendChoice:
    return BackendChoice(request.param)


def everything(pod: Netns) -> str:
    """All rules and routes of a netns, without counters, handles, comments and the tables that only exist."""
    text = ""
    for tool in ("iptables-legacy-save", "ip6tables-legacy-save", "iptables-nft-save", "ip6tables-nft-save"):
        lines = [line for line in pod.run(tool).splitlines() if line.startswith("-A") or (line.startswith(":") and " - " in line)]
        text += "\n".join([tool, *sorted(lines), ""])
    text += pod.run("sh", "-c", "nft -s list tables inet; nft -s list ruleset inet")
    for family in ("-4", "-6"):
        text += pod.run("ip", family, "rule") + pod.run("sh", "-c", f"ip {family} route show table 100 || true")
    return text


def captured(pair: Pair) -> bool:
    """Outbound connections of both families are answered by nobody: there is no proxy, and they don't reach the peer either."""
    answers = []
    for family in FAMILIES:
        with pair.peer.listen(family, 7100):
            answers.append(refused(lambda family=family: pair.pod.connect(family, pair.peer.addresses[family], 7100)))
    assert answers[0] == answers[1]
    return answers[0]


def test_apply_twice_changes_once(pair: Pair, backend: BackendChoice) -> None:
    pod = pair.pod
    assert verify(pod.path, CONFIG, backend=backend).missing
    first = apply(pod.path, CONFIG, backend=backend)
    assert (first.backend, first.changed) == (backend, True)
    before = everything(pod)
    assert apply(pod.path, CONFIG, backend=backend) == Applied(first.backend, False)
    assert apply(pod.path, CONFIG) == Applied(first.backend, False), "auto keeps the backend that a pod has"
    assert verify(pod.path, CONFIG, backend=backend) == Drift()
    assert everything(pod) == before
    assert captured(pair)


def test_descriptors_work_like_paths(pair: Pair) -> None:
    with open(pair.pod.path) as file:
        assert apply(file.fileno(), CONFIG).changed
        assert not verify(file.fileno(), CONFIG)
        assert remove(file.fileno())


def test_a_change_of_configuration_is_drift(pair: Pair, backend: BackendChoice) -> None:
    pod = pair.pod
    apply(pod.path, CONFIG, backend=backend)
    drift = verify(pod.path, CaptureConfig(), backend=backend)
    assert drift.unexpected
    assert not drift.missing
    assert apply(pod.path, CaptureConfig(), backend=backend).changed
    assert not verify(pod.path, CaptureConfig(), backend=backend)


DAMAGE: dict[BackendChoice, dict[str, str]] = {
    NFT: {
        "deleted": "nft flush chain inet istio-ambient-mangle output",
        "inserted": "nft insert rule inet istio-ambient-nat istio-output tcp dport 7100 accept",
        "flushed": "nft flush chain inet istio-ambient-nat istio-output",
        "changed": "nft flush chain inet istio-ambient-mangle istio-prerouting; "
        "nft add rule inet istio-ambient-mangle istio-prerouting meta mark 1337 counter ct mark set 273",
        "dormant": "nft add table inet istio-ambient-nat '{ flags dormant; }'",
        "table": "nft delete table inet istio-ambient-nat",
    },
    IPTABLES: {
        "deleted": "iptables-nft -t nat -D ISTIO_OUTPUT 1",
        "inserted": "ip6tables-nft -t nat -I ISTIO_OUTPUT -p tcp -m tcp --dport 7100 -j ACCEPT",
        "flushed": "ip6tables-nft -t nat -F ISTIO_OUTPUT",
        "changed": "iptables-nft -t mangle -R ISTIO_PRERT 1 -m mark --mark 1 -j CONNMARK --set-mark 2",
        "unhooked": "iptables-nft -t nat -D OUTPUT -j ISTIO_OUTPUT",
        "hooked twice": "iptables-nft -t nat -A OUTPUT -p tcp -m comment --comment 'it is \"mine\"' -j ISTIO_OUTPUT",
    },
    LEGACY: {
        "deleted": "iptables-legacy -t nat -D ISTIO_OUTPUT 1",
        "inserted": "ip6tables-legacy -t nat -I ISTIO_OUTPUT -p tcp -m tcp --dport 7100 -j ACCEPT",
        "flushed": "ip6tables-legacy -t nat -F ISTIO_OUTPUT",
        "changed": "iptables-legacy -t mangle -R ISTIO_PRERT 1 -m mark --mark 1 -j CONNMARK --set-mark 2",
        "unhooked": "iptables-legacy -t nat -D OUTPUT -j ISTIO_OUTPUT",
        "hooked twice": "iptables-legacy -t nat -A OUTPUT -p tcp -m comment --comment 'it is \"mine\"' -j ISTIO_OUTPUT",
    },
}
ROUTING_DAMAGE = {"rule": "ip -6 rule del pref 32764", "route": "ip -4 route flush table 100"}


def test_drift_is_found_and_mended(pair: Pair, backend: BackendChoice) -> None:
    pod = pair.pod
    apply(pod.path, CONFIG, backend=backend)
    before = everything(pod)
    for name, command in {**DAMAGE[backend], **ROUTING_DAMAGE}.items():
        pod.run("sh", "-c", command)
        assert everything(pod) != before, name
        assert verify(pod.path, CONFIG, backend=backend), name
        mended = repair(pod.path, CONFIG, backend=backend)
        assert mended.changed, name
        assert mended.details, name
        assert sorted(everything(pod).splitlines()) == sorted(before.splitlines()), name
        assert not verify(pod.path, CONFIG, backend=backend), name
    assert captured(pair)


FOREIGN = """
for t in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do
  $t -t nat -N MINE; $t -t nat -A MINE -p tcp -m tcp --dport 9999 -j RETURN; $t -t nat -A OUTPUT -j MINE
  $t -t nat -A PREROUTING -p udp -m udp --dport 9 -j REDIRECT --to-ports 10
  $t -t mangle -A OUTPUT -p udp -m comment --comment "a 'foreign' rule" -j ACCEPT
  $t -A OUTPUT -p udp -m udp --dport 9 -j DROP
done
nft add table inet mine; nft add chain inet mine output '{ type filter hook output priority 5; }'
nft add rule inet mine output udp dport 11 drop
ip rule add fwmark 0x9 lookup 100 pref 99; ip route add unreachable 198.51.100.0/24 table 100
"""


def test_foreign_rules_stay_and_removal_restores(pair: Pair, backend: BackendChoice) -> None:
    pod = pair.pod
    pod.run("sh", "-ec", FOREIGN)
    before = everything(pod)
    apply(pod.path, CONFIG, backend=backend)
    kept = set(before.splitlines()) - set(everything(pod).splitlines())
    assert not kept, "every line that was there is still there"
    pod.run("sh", "-ec", DAMAGE[backend]["flushed"])
    repair(pod.path, CONFIG, backend=backend)
    assert captured(pair)
    assert remove(pod.path)
    assert everything(pod) == before
    assert not remove(pod.path)
    assert not captured(pair)


def test_another_backends_leftovers_are_replaced(pair: Pair) -> None:
    pod = pair.pod
    for backend in (NFT, IPTABLES, LEGACY, NFT):
        done = apply(pod.path, CONFIG, backend=backend)
        assert (done.backend, done.changed) == (backend, True)
        assert not verify(pod.path, CONFIG, backend=backend)
        assert captured(pair)
    alone = everything(pod)
    remove(pod.path)
    apply(pod.path, CONFIG, backend=NFT)
    assert everything(pod) == alone


# Stand-ins for the tools that do part of the work and then fail. The guardrail's text names its own table or chain.
FAILING = {
    NFT: ("nft", 'input=$(cat); case "$input" in *"istio-ambient-nat output"*) echo out of memory >&2; exit 1;; esac'),
    IPTABLES: ("ip6tables-nft-restore", 'input=$(cat); case "$input" in *"*nat"*) echo out of memory >&2; exit 1;; esac'),
    LEGACY: ("python", 'input=$(cat); case "$input" in *\'"family":6\'*) echo out of memory >&2; exit 1;; esac'),
}


def failing_tools(backend: BackendChoice, folder: Path) -> Tools:
    name, script = FAILING[backend]
    real = Tools()
    program = real.python if name == "python" else real.find(name)
    text = f'#!/bin/sh\n{script}\nprintf "%s\\n" "$input" | exec {program} "$@"\n'
    stand_in = folder / name
    stand_in.write_text(text)
    stand_in.chmod(0o755)
    if name == "python":
        return Tools(python=str(stand_in), lock_dir=str(folder))
    return Tools(search_path=f"{folder}:{real.search_path}", lock_dir=str(folder))


def test_a_failed_change_leaves_the_pod_closed_until_repaired(pair: Pair, backend: BackendChoice, tmp_path: Path) -> None:
    pod, peer = pair.pod, pair.peer
    apply(pod.path, CaptureConfig(), backend=backend)
    assert captured(pair)
    with pytest.raises(CaptureFailedError, match=r"out of memory.*CLOSED") as failure:
        apply(pod.path, CONFIG, backend=backend, tools=failing_tools(backend, tmp_path))
    assert failure.value.closed
    for family in FAMILIES:
        with peer.listen(family, 7100), pod.listen(family, 15008):
            assert dropped(pod, family, peer.addresses[family], 7100)
            assert dropped(peer, family, pod.addresses[family], 15008)
    drift = verify(pod.path, CONFIG, backend=backend)
    assert any("guardrail" in line for line in drift.unexpected)
    with pytest.raises(CaptureFailedError, match="out of memory"):
        repair(pod.path, CONFIG, backend=backend, tools=failing_tools(backend, tmp_path))
    assert dropped(pod, socket.AF_INET, peer.addresses[socket.AF_INET], 7100)
    assert repair(pod.path, CONFIG, backend=backend).changed
    assert not verify(pod.path, CONFIG, backend=backend)
    assert captured(pair)


def test_a_first_change_that_fails_closes_the_pod_and_removal_opens_it(pair: Pair, backend: BackendChoice, tmp_path: Path) -> None:
    pod, peer = pair.pod, pair.peer
    apply(pod.path, CONFIG, backend=backend)
    remove(pod.path)  # the working tools are known to work now, and the tables exist
    before = everything(pod)
    tools = failing_tools(backend, tmp_path)
    apply(pod.path, CaptureConfig(ipv6=False), backend=backend)
    with pytest.raises(CaptureFailedError):
        apply(pod.path, CONFIG, backend=backend, tools=tools)
    assert dropped(pod, socket.AF_INET6, peer.addresses[socket.AF_INET6], 7100)
    remove(pod.path)
    assert everything(pod) == before
    assert not captured(pair)


def test_when_the_guardrail_cannot_be_put_nothing_is_touched(pair: Pair, tmp_path: Path) -> None:
    pod = pair.pod
    apply(pod.path, CaptureConfig(), backend=NFT)
    before = everything(pod)
    stand_in = tmp_path / "nft"
    stand_in.write_text(f'#!/bin/sh\n[ "$1" = -j ] || exit 9\nexec {Tools().find("nft")} "$@"\n')
    stand_in.chmod(0o755)
    with pytest.raises(CaptureFailedError, match="as it was before") as failure:
        apply(pod.path, CONFIG, backend=NFT, tools=Tools(search_path=f"{tmp_path}:{Tools().search_path}", lock_dir=str(tmp_path)))
    assert not failure.value.closed
    assert everything(pod) == before


def test_concurrent_changes_do_not_disturb_each_other(pair: Pair, backend: BackendChoice) -> None:
    """Two netns at once, each by two threads that want different things; the last one's wish stands in each."""
    with pair_of_pods() as other:
        results: list[Applied] = []
        failures: list[Exception] = []

        def work(netns: Netns, config: CaptureConfig) -> None:
            try:
                results.extend([apply(netns.path, config, backend=backend) for _ in range(3)])
            except Exception as error:  # noqa: BLE001 - looked at below
                failures.append(error)

        wishes: list[Callable[[], None]] = [
            lambda netns=netns, config=config: work(netns, config)
            for netns in (pair.pod, other.pod)
            for config in (CONFIG, CaptureConfig())
        ]
        threads = [threading.Thread(target=wish) for wish in wishes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(results) == 12
        for end in (pair.pod, other.pod):
            drifts = [verify(end.path, config, backend=backend) for config in (CONFIG, CaptureConfig())]
            assert sorted(bool(drift) for drift in drifts) == [False, True], "exactly one of the two is in force, whole"
        assert everything(pair.peer) == everything(other.peer)


def test_ipv6_off_in_the_pod_is_no_failure(pair: Pair, backend: BackendChoice) -> None:
    pod = pair.pod
    pod.run("sh", "-ec", "for i in all lo; do echo 1 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; done")
    assert apply(pod.path, CONFIG, backend=backend).changed
    assert not verify(pod.path, CONFIG, backend=backend)
    pod.run("sh", "-ec", "echo 0 > /proc/sys/net/ipv6/conf/lo/disable_ipv6")
    assert len(verify(pod.path, CONFIG, backend=backend).missing) == 2, "IPv6 routing is wanted as soon as there is IPv6"


def test_ones_own_netns_is_refused() -> None:
    with pytest.raises(NetnsError, match="refusing"):
        apply("/proc/self/ns/net", CONFIG)
    with pytest.raises(NetnsError, match="network namespace"):
        apply("/proc/self/ns/mnt", CONFIG)
