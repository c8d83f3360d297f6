"""The tables of the inspection commands: literal text from a dump, and nothing a dump holds does harm."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztunnel.cli.errors import CommandError
from ztunnel.cli.fetch import read_dump
from ztunnel.cli.render import as_json, as_yaml, table
from ztunnel.cli.select import Selection
from ztunnel.cli.shape import Json, entries
from ztunnel.cli.tables import (
    CERTIFICATES,
    CONNECTIONS,
    POLICIES,
    SERVICES,
    WORKLOADS,
    Names,
    certificate_rows,
    connection_rows,
    policy_rows,
    service_rows,
    workload_rows,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DUMP: Json = {
    "workloads": [
        {
            "uid": "w1",
            "name": "sleep-1",
            "namespace": "default",
            "workloadIps": ["10.0.0.1", "fd00::1"],
            "node": "n1",
            "protocol": "HBONE",
            "waypoint": {"destination": "/10.9.0.9", "hboneMtlsPort": 15008},
        },
        {
            "uid": "w2",
            "name": "db-0",
            "namespace": "data",
            "workloadIps": [],
            "protocol": "TCP",
            "waypoint": {"destination": "x/y"},
        },
    ],
    "services": [
        {
            "name": "web",
            "namespace": "default",
            "hostname": "web.default.svc.cluster.local",
            "vips": ["/10.9.0.1", "net/fd00::9"],
            "endpoints": {"a": {"status": "Healthy"}, "b": {"status": "Unhealthy"}, "c": {}},
            "waypoint": {"destination": "default/way.default.svc.cluster.local"},
        },
        {"name": "way", "namespace": "default", "hostname": "way.default.svc.cluster.local", "vips": ["/10.9.0.9"]},
    ],
    "policies": [{"name": "deny", "namespace": "default", "action": "Deny", "scope": "Namespace", "rules": []}],
    "certificates": [
        {
            "identity": "spiffe://cluster.local/ns/default/sa/sleep",
            "state": "Available",
            "certChain": [
                {"serialNumber": "255", "validFrom": "2026-05-31T00:00:00Z", "expirationTime": "2026-06-02T00:00:00Z"},
                {"serialNumber": "no", "validFrom": "x", "expirationTime": ""},
            ],
            "rootCerts": [{"serialNumber": "16", "validFrom": "2020-01-01T00:00:00Z", "expirationTime": "2021-01-01T00:00:00Z"}],
        },
        {"identity": "spiffe://cluster.local/ns/default/sa/web", "state": "Unavailable: the CA is away", "certChain": []},
    ],
    "workloadState": {
        "w1": {
            "state": "Up",
            "info": {"name": "sleep-1", "namespace": "default"},
            "connections": {
                "inbound": [{"src": "10.0.7.7:5", "actualDst": "10.0.0.1:80", "protocol": "HBONE"}],
                "outbound": [
                    {
                        "src": "10.0.0.1:4444",
                        "originalDst": "10.9.0.1:80",
                        "actualDst": "[fd00::1]:15008",
                        "protocol": "HBONE",
                        "path": "tunnel",
                        "why": "endpoint on node n2",
                    }
                ],
            },
        }
    },
}
SERVICE_LIST = entries(DUMP["services"])
ALL = Selection()


def test_workloads() -> None:
    assert table(WORKLOADS, workload_rows(ALL.workloads(DUMP), SERVICE_LIST)) == (
        "NAMESPACE  POD NAME  ADDRESS   NODE  WAYPOINT  PROTOCOL\n"
        "data       db-0                      NA        TCP\n"
        "default    sleep-1   10.0.0.1  n1    way       HBONE\n"
    )


def test_services() -> None:
    assert table(SERVICES, service_rows(ALL.services(DUMP), SERVICE_LIST)) == (
        "NAMESPACE  SERVICE NAME  SERVICE VIP       WAYPOINT  ENDPOINTS\n"
        "default    way           10.9.0.9          None      0/0\n"
        "default    web           10.9.0.1,fd00::9  way       2/3\n"
    )


def test_policies() -> None:
    assert table(POLICIES, policy_rows(ALL.policies(DUMP))) == (
        "NAMESPACE  POLICY NAME  ACTION  SCOPE\ndefault    deny         Deny    Namespace\n"
    )


def test_certificates() -> None:
    sleep, web = "spiffe://cluster.local/ns/default/sa/sleep", "spiffe://cluster.local/ns/default/sa/web"
    assert certificate_rows(entries(DUMP["certificates"]), NOW) == [
        (sleep, "Leaf", "Available", "true", "ff", "2026-06-02T00:00:00Z", "2026-05-31T00:00:00Z"),
        (sleep, "Intermediate", "Available", "false", "NA", "NA", "x"),
        (sleep, "Root", "Available", "false", "10", "2021-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
        (web, "NA", "Unavailable", "false", "NA", "NA", "NA"),
    ]


def test_connections() -> None:
    names = Names(entries(DUMP["workloads"]), SERVICE_LIST)
    inbound = ("sleep-1.default", "Inbound", "sleep-1.default:80", "10.0.7.7:5", "", "HBONE", "", "")
    outbound = (
        "sleep-1.default",
        "Outbound",
        "sleep-1.default:4444",
        "sleep-1.default:15008",
        "web.default.svc.cluster.local:80",
        "HBONE",
        "tunnel",
        "endpoint on node n2",
    )
    pods = ALL.pods(DUMP)
    assert connection_rows(pods, "", names) == [inbound, outbound]
    assert connection_rows(pods, "inbound", names) == [inbound]
    assert connection_rows(pods, "outbound", names) == [outbound]
    raw = connection_rows(pods, "outbound", Names([], [], raw=True))
    assert raw[0][2:5] == ("10.0.0.1:4444", "[fd00::1]:15008", "10.9.0.1:80")
    assert CONNECTIONS[:6] == ("WORKLOAD", "DIRECTION", "LOCAL", "REMOTE", "REMOTE TARGET", "PROTOCOL")


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (Selection(("sleep",)), ["sleep-1"]),
        (Selection(("db-0.data",)), ["db-0"]),
        (Selection(("*-?",)), ["sleep-1", "db-0"]),
        (Selection(("nothing",)), []),
        (Selection(address="fd00::1"), ["sleep-1"]),
        (Selection(workload_namespace="data"), ["db-0"]),
        (Selection(workload_node="n1"), ["sleep-1"]),
    ],
)
def test_selection_of_workloads(selection: Selection, names: list[str]) -> None:
    assert [item["name"] for item in selection.workloads(DUMP)] == names


def test_selection_of_the_rest() -> None:
    assert len(Selection(service_namespace="x").services(DUMP)) == 0
    assert len(Selection(policy_namespace="default").policies(DUMP)) == 1
    assert len(Selection(workload_namespace="data").pods(DUMP)) == 0


def test_nothing_reaches_the_terminal_that_it_would_obey() -> None:
    hostile = "a\x1b[2J\r\n\u202eb\x9b"
    assert table(("X",), [(hostile,)]) == "X\na?[2J???b?\n"
    assert as_json([hostile]) == '[\n    "a\\u001b[2J\\r\\n\\u202eb\\u009b"\n]\n'
    assert as_yaml([hostile]).isascii()
    assert "\x1b" not in as_yaml([hostile])
    assert as_json(["\U000e0001"]) == '[\n    "\\udb40\\udc01"\n]\n'


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"{} {}", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is JSON but not an object"),
    ],
)
def test_what_is_no_dump_is_refused_with_cause_and_remedy(data: bytes, cause: str) -> None:
    with pytest.raises(CommandError, match=rf"^evil\? {cause}.*; a dump is what `curl localhost:15000/config_dump` prints$"):
        read_dump(data, "evil\x1b")


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUE = st.recursive(
    LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=8
)
KEYS = st.sampled_from(
    [
        *("name", "namespace", "workloadIps", "node", "protocol", "waypoint", "destination", "vips", "hostname", "endpoints"),
        *("status", "action", "scope", "identity", "state", "certChain", "rootCerts", "serialNumber", "validFrom"),
        *("expirationTime", "info", "connections", "inbound", "outbound", "src", "actualDst", "originalDst", "path", "why"),
    ]
)
THING = st.dictionaries(KEYS, VALUE | st.lists(st.dictionaries(KEYS, VALUE, max_size=4), max_size=2))
LIST = st.lists(THING, max_size=3) | VALUE
PODS = VALUE | st.dictionaries(st.text(max_size=3), THING)
TIME = st.sampled_from(["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2026-01-01", "20260101", ""])


@settings(max_examples=50)
@given(
    dump=st.fixed_dictionaries(
        {"workloads": LIST, "services": LIST, "policies": LIST, "certificates": LIST, "workloadState": PODS}
    ),
    when=TIME,
)
def test_every_table_is_total(dump: Json, when: str) -> None:
    services = entries(dump["services"])
    chain: list[Json] = [{"identity": "i", "certChain": [{"serialNumber": "9" * 5000, "validFrom": when, "expirationTime": when}]}]
    names = Names(entries(dump["workloads"]), services)
    for head, rows in (
        (WORKLOADS, workload_rows(ALL.workloads(dump), services)),
        (SERVICES, service_rows(ALL.services(dump), services)),
        (POLICIES, policy_rows(ALL.policies(dump))),
        (CERTIFICATES, certificate_rows(entries(dump["certificates"]) + chain, NOW)),
        (CONNECTIONS, connection_rows(ALL.pods(dump), "", names)),
    ):
        lines = table(head, rows).splitlines()
        assert len(lines) == len(rows) + 1
        assert all(line.isprintable() for line in lines)
