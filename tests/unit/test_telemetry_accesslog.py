"""The access log's lines: ztunnel's fields in ztunnel's order, and nothing a peer says can break one."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.link.messages import Party, Record, SeriesDef
from ztunnel.reasons import CloseReason
from ztunnel.telemetry.accesslog import AccessLog, level_of
from ztunnel.telemetry.sentences import error_of

CLIENT = Party(pod="sleep-1", namespace="default", principal="spiffe://cluster.local/ns/default/sa/sleep", cluster="Kubernetes")
SERVER = Party(canonical_service="httpbin", namespace="web", principal="spiffe://cluster.local/ns/web/sa/httpbin")
TUNNEL = SeriesDef(1, "source", CLIENT, SERVER, "web/httpbin.web.svc.cluster.local", "mutual_tls", "tunnel")
PLAIN = SeriesDef(2, "source", CLIENT, SERVER, "", "unknown", "passthrough")
OK = Record(
    1, "outbound", "10.0.0.1:3333", "10.0.1.2:15008", "10.0.1.2:80", 84, 152, 1_700_000_000.0, 0.0129, "complete", trace="ab" * 16
)


def log(*, as_json: bool = False) -> AccessLog:
    access = AccessLog(json=as_json)
    access.define(TUNNEL)
    access.define(PLAIN)
    return access


def record(reason: str, *, series: int = 1, detail: str = "", policy: str = "") -> Record:
    return Record(series, "outbound", "10.0.0.1:3333", "10.0.1.2:80", "", 0, 0, 1_700_000_000.5, 0.0, reason, detail, policy)


def test_complete_is_this_line() -> None:
    assert log().line(OK).decode() == (
        "2023-11-14T22:13:20.012900Z\tinfo\taccess\tconnection complete\tsrc.addr=10.0.0.1:3333 "
        'src.workload="sleep-1" src.namespace="default" src.identity="spiffe://cluster.local/ns/default/sa/sleep" '
        'src.cluster="Kubernetes" dst.addr=10.0.1.2:15008 dst.hbone_addr=10.0.1.2:80 '
        'dst.service="httpbin.web.svc.cluster.local" dst.workload="httpbin" dst.namespace="web" '
        'dst.identity="spiffe://cluster.local/ns/web/sa/httpbin" direction="outbound" bytes_sent=84 bytes_recv=152 '
        f'duration="12ms" reason=complete trace={"ab" * 16} path=tunnel\n'
    )


def test_complete_in_json() -> None:
    assert list(json.loads(log(as_json=True).line(OK)).items()) == [
        ("level", "info"),
        ("time", "2023-11-14T22:13:20.012900Z"),
        ("scope", "access"),
        ("message", "connection complete"),
        ("src.addr", "10.0.0.1:3333"),
        ("src.workload", "sleep-1"),
        ("src.namespace", "default"),
        ("src.identity", "spiffe://cluster.local/ns/default/sa/sleep"),
        ("src.cluster", "Kubernetes"),
        ("dst.addr", "10.0.1.2:15008"),
        ("dst.hbone_addr", "10.0.1.2:80"),
        ("dst.service", "httpbin.web.svc.cluster.local"),
        ("dst.workload", "httpbin"),
        ("dst.namespace", "web"),
        ("dst.identity", "spiffe://cluster.local/ns/web/sa/httpbin"),
        ("direction", "outbound"),
        ("bytes_sent", 84),
        ("bytes_recv", 152),
        ("duration", "12ms"),
        ("reason", "complete"),
        ("trace", "ab" * 16),
        ("path", "tunnel"),
    ]


def test_a_denied_connection_is_an_error_that_names_the_policy_last() -> None:
    line = log().line(record("policy_denied", policy="web/no-entry")).decode()
    assert line.startswith("2023-11-14T22:13:20.500000Z\terror\taccess\tconnection complete\t")
    assert line.endswith(
        ' duration="0ms" error="connection closed due to policy rejection: explicitly denied by: web/no-entry" '
        'reason=policy_denied policy="web/no-entry" path=tunnel\n'
    )


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        ("policy_denied", "explicitly denied by: web/no-entry (rule 2)"),
        ("policy_not_allowed", "allow policies exist, but none allowed; dry-run: would be allowed by web/p (rule 0)"),
    ],
)
def test_a_verdict_is_told_once_and_with_its_rule(reason: str, verdict: str) -> None:
    line = log().line(record(reason, policy="web/no-entry", detail=verdict)).decode()
    assert f'error="connection closed due to policy rejection: {verdict}" ' in line


def test_refused_before_a_series() -> None:
    assert log().line(record("no_healthy_upstream", series=0, detail="10.0.1.2:80")).decode() == (
        "2023-11-14T22:13:20.500000Z\twarn\taccess\tconnection failed\tsrc.addr=10.0.0.1:3333 dst.addr=10.0.1.2:80 "
        'direction="outbound" error="no healthy upstream: 10.0.1.2:80 (the service has no ready endpoint for that port; '
        'see `ztunnel services`)" reason=no_healthy_upstream\n'
    )


def test_identities_only_where_they_were_proved() -> None:
    assert b"identity" not in log().line(record("complete", series=2))


def test_a_series_beyond_the_limit_leaves_the_addresses() -> None:
    access = AccessLog(max_series=1)
    access.define(TUNNEL)
    access.define(PLAIN)
    line = access.line(record("complete", series=2)).decode()
    assert "src.addr=10.0.0.1:3333 dst.addr=10.0.1.2:80 direction=" in line
    assert line.endswith(' reason=complete path=""\n')


@pytest.mark.parametrize(
    ("reason", "detail", "error"),
    [
        ("complete", "", ""),
        (
            "peer_timeout",
            "10.0.1.2:15008",
            "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: 10.0.1.2:15008",
        ),
        (
            "policy_not_allowed",
            "",
            "connection closed due to policy rejection: allow policies exist, but none allowed",
        ),
        (
            "peer_denied",
            "http status: 401 (policy_denied: shop/p) from 10.11.0.2:15008",
            "http status: 401 (policy_denied: shop/p) from 10.11.0.2:15008: the destination's policy refused this identity; its "
            "node's access log names the policy",
        ),
        (
            "unknown_waypoint",
            "ns/way",
            "unknown waypoint: ns/way (the destination names a waypoint that does not exist)",
        ),
        ("of_tomorrow", "x", "unknown reason of_tomorrow: x"),
    ],
)
def test_error_is_worded_as_ztunnel_does(reason: str, detail: str, error: str) -> None:
    assert error_of(record(reason, detail=detail)) == error


@pytest.mark.parametrize("reason", [reason for reason in CloseReason if reason != "complete"])
def test_every_reason_has_an_error_that_shows_the_detail(reason: CloseReason) -> None:
    assert "10.9.8.7" in error_of(record(reason, detail="10.9.8.7"))
    assert error_of(record(reason))
    assert level_of(record(reason)) == "error"
    assert level_of(record(reason, series=0)) == "warn"


FIELD = re.compile(r'([a-z_.]+)=("(?:[^"\\]|\\.)*"|[^ "]+)( |$)')
NAMES = {"src.addr", "dst.addr", "dst.hbone_addr", "direction", "bytes_sent", "bytes_recv", "duration", "error"}
NAMES |= {f"{side}.{name}" for side in ("src", "dst") for name in ("workload", "namespace", "identity", "cluster", "service")}
NAMES |= {"reason", "policy", "trace", "path"}
ANY = st.text() | st.text('a"\\\n\r\t= \x00\x1b\x85\u2028,{}[]:', max_size=12)


@given(data=st.data(), as_json=st.booleans(), started=st.floats(), duration=st.floats())
def test_no_text_breaks_a_line(data: st.DataObject, as_json: bool, started: float, duration: float) -> None:
    def text() -> str:
        return data.draw(ANY)

    access = AccessLog(json=as_json)
    party = Party(pod=text(), namespace=text(), principal=text(), cluster=text())
    access.define(SeriesDef(1, text(), party, party, text(), text(), text()))
    series = data.draw(st.sampled_from((0, 1, 2)))
    told = Record(series, text(), text(), text(), text(), 1, 2, started, duration, text(), text(), text(), text())
    line = access.line(told).decode()
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert line[:-1].replace("\t", "").isprintable() or as_json
    if as_json:
        fields = json.loads(line)
        assert fields["src.addr"] == told.source.encode("utf-8", "replace").decode()
        assert set(fields) <= NAMES | {"level", "time", "scope", "message"}
    else:
        *head, tail = line[:-1].split("\t")
        assert len(head) == 4
        matches = list(FIELD.finditer(tail))
        assert "".join(match[0] for match in matches) == tail
        assert {match[1] for match in matches} <= NAMES
