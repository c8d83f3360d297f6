"""Readiness, the guard of the admin port, the errors of binding and the shape of the dump: the pure parts."""

import errno
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.admin.dump import SLICE, DumpParts, PodView, assemble, encode_slices, version_info
from ztunnel.admin.errors import BindError
from ztunnel.admin.guard import loopback_only
from ztunnel.admin.message import Request
from ztunnel.admin.readiness import Readiness
from ztunnel.link.messages import ConnectionView
from ztunnel.state.model import WorkloadInfo

POD = PodView("uid-1", WorkloadInfo("sleep-1", "default", "sleep"))


def test_readiness_names_what_is_missing() -> None:
    readiness = Readiness()
    assert readiness.pending == ("state manager", "proxy", "workload proxy manager")
    for task in readiness.pending:
        readiness.done(task)
    assert readiness.pending == ()
    readiness.lost("workload proxy manager")
    assert readiness.pending == ("workload proxy manager",)
    with pytest.raises(KeyError):
        readiness.done("state manger")


@pytest.mark.parametrize("host", ["localhost", "localhost:15000", "LOCALHOST:1", "127.0.0.1:15000", "[::1]:15000", "[::1]"])
def test_loopback_hosts_may(host: str) -> None:
    assert loopback_only(Request("POST", "/", {"host": host})) is None
    assert loopback_only(Request("POST", "/", {"host": host, "origin": f"http://{host}"})) is None


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:15000", "", "[::1]x", "[::2]", "127.0.0.1.nip.io", "::1"])
def test_other_hosts_and_origins_may_not(host: str) -> None:
    refused = loopback_only(Request("GET", "/config_dump", {"host": host}))
    assert refused is not None
    assert refused.status == 403
    assert loopback_only(Request("POST", "/quitquitquit", {"host": "localhost", "origin": f"https://{host}"})) is not None


def test_without_host_or_with_null_origin() -> None:
    assert loopback_only(Request("GET", "/")) is None
    assert loopback_only(Request("POST", "/", {"host": "localhost", "origin": "null"})) is not None


@given(st.text(), st.text())
def test_guard_is_total(host: str, origin: str) -> None:
    answer = loopback_only(Request("GET", "/", {"host": host, "origin": origin}))
    assert answer is None or answer.status == 403


def test_bind_error_names_port_cause_and_remedy() -> None:
    told = str(BindError("metrics", "::", 15020, "statsPort", OSError(errno.EADDRINUSE, "Address already in use")))
    assert told == (
        "cannot listen on [::]:15020 for metrics: Address already in use; another process has the port "
        "(`ss -ltnp 'sport = :15020'` names it): stop it, or set another port with statsPort"
    )


def test_dump_has_the_keys_of_ztunnel() -> None:
    inbound = ConnectionView("uid-1", "inbound", "10.0.0.9:1", "10.0.0.1:80", "10.0.0.1:80", "HBONE", "tunnel", "w", 1.25, 3, 4)
    gone = ConnectionView("uid-2", "inbound", "a", "b", "c", "TCP", "tunnel", "", 0, 0, 0)
    dump = assemble(DumpParts(workloads=[{"uid": "w"}], pods=[POD], connections=[inbound, gone], version=version_info("1")))
    assert list(dump) == [
        "workloads",
        "services",
        "policies",
        "stagedServices",
        "staticConfig",
        "version",
        "config",
        "certificates",
        "workloadState",
    ]
    assert dump["workloadState"] == {
        "uid-1": {
            "state": "Up",
            "connections": {
                "inbound": [
                    {
                        "src": "10.0.0.9:1",
                        "originalDst": "10.0.0.1:80",
                        "actualDst": "10.0.0.1:80",
                        "protocol": "HBONE",
                        "path": "tunnel",
                        "why": "w",
                        "ageSeconds": 1.25,
                        "bytesSent": 3,
                        "bytesReceived": 4,
                    }
                ],
                "outbound": [],
            },
            "info": {"name": "sleep-1", "namespace": "default", "serviceAccount": "sleep"},
        }
    }


@pytest.mark.parametrize("count", [0, 1, SLICE, SLICE + 1, 3 * SLICE])
def test_slices_are_small_and_make_one_json_document(count: int) -> None:
    pods = [PodView(f"u{n}", WorkloadInfo("p", "n", "s")) for n in range(count)]
    dump = assemble(DumpParts(workloads=[{"uid": str(n), "text": 'a"\n'} for n in range(count)], pods=pods, config={"a": [1]}))
    slices = list(encode_slices(dump))
    assert json.loads(b"".join(slices)) == dump
    assert max(piece.count(b"\n") for piece in slices) <= SLICE + 1
