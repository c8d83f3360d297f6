"""The environment: ztunnel's names, meanings and defaults."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel import config_values as values
from ztunnel.config import Config, ConfigError
from ztunnel.config_table import IGNORED, REFUSED, VARIABLES
from ztunnel.state.model import WorkloadInfo


def config(mesh: str = "", /, **env: str) -> Config:
    return Config.from_env(env, mesh)


def problems(mesh: str = "", /, **env: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        Config.from_env(env, mesh)
    return caught.value.problems


def test_the_table_and_the_config_have_the_same_fields() -> None:
    fields = {field.name for field in dataclasses.fields(Config)}
    assert fields == ({v.field for v in VARIABLES} - {"grace_period"}) | {"xds_headers", "ca_headers", "ignored"}
    names = [name for v in VARIABLES for name in v.names]
    assert len(names) == len(set(names))
    assert not set(names) & (set(IGNORED) | set(REFUSED))


def test_defaults_are_ztunnels() -> None:
    found = config()
    assert dataclasses.asdict(found) == {
        "proxy_mode": "shared", "workload_info": None, "network": "", "node_name": "", "cluster_id": "Kubernetes",
        "cluster_domain": "cluster.local", "trust_domain": "cluster.local", "pod_name": "", "pod_namespace": "",
        "service_account": "", "instance_ip": "", "local_xds_path": "", "local_xds": "", "local_ca_dir": "",
        "xds_address": "https://localhost:15012", "ca_address": "https://localhost:15012",
        "xds_root_ca": "./var/run/secrets/istio/root-cert.pem", "ca_root_ca": "./var/run/secrets/istio/root-cert.pem",
        "auth_token": "./var/run/secrets/tokens/istio-token", "alt_xds_hostname": "", "alt_ca_hostname": "", "xds_headers": (),
        "ca_headers": (), "secret_ttl": 86400.0, "inpod_uds": "/var/run/ztunnel/ztunnel.sock",
        "inpod_port_reuse": True, "packet_mark": 1337, "orig_src": None, "ipv6": True, "pool_max_streams": 100,
        "pool_unused_timeout": 300.0, "stream_window": 4194304, "connection_window": 16777216, "frame_size": 1048576,
        "keepalive": True, "keepalive_time": 180.0, "keepalive_interval": 180.0, "keepalive_retries": 9, "user_timeout": False,
        "termination_deadline": 5.0, "localhost_app_tunnel": True, "response_baggage": True, "policy_info_logging": False,
        "encrypt_same_node": False, "rust_log": "info", "log_format": "text", "admin_port": 15000, "stats_port": 15020,
        "readiness_port": 15021, "ignored": (),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("NETWORK", "n1", "network", "n1"),
        ("CLUSTER_ID", "c", "cluster_id", "c"),
        ("ISTIO_META_CLUSTER_ID", "c", "cluster_id", "c"),
        ("SECRET_TTL", "1h30m", "secret_ttl", 5400.0),
        ("XDS_ADDRESS", "", "xds_address", ""),
        ("XDS_ADDRESS", "istiod:15012", "xds_address", "https://istiod:15012"),
        ("CA_ADDRESS", "http://[::1]:15010/", "ca_address", "http://[::1]:15010"),
        ("PACKET_MARK", "0x539", "packet_mark", 1337),
        ("ENABLE_ORIG_SRC", "true", "orig_src", True),
        ("ENABLE_ORIG_SRC", "False", "orig_src", False),
        ("ENABLE_ORIG_SRC", "", "orig_src", None),
        ("IPV6_ENABLED", "0", "ipv6", False),
        ("LOG_FORMAT", "JSON", "log_format", "json"),
        ("TERMINATION_GRACE_PERIOD_SECONDS", "30", "termination_deadline", 25.0),
        ("TERMINATION_GRACE_PERIOD_SECONDS", "11", "termination_deadline", 6.0),
        ("TERMINATION_GRACE_PERIOD_SECONDS", "10", "termination_deadline", 9.0),
        ("TERMINATION_GRACE_PERIOD_SECONDS", "2", "termination_deadline", 1.0),
        ("TERMINATION_GRACE_PERIOD_SECONDS", "0", "termination_deadline", 1.0),
        ("CONNECTION_TERMINATION_DEADLINE", "100ms", "termination_deadline", 0.1),
        ("ENCRYPT_SAME_NODE", "true", "encrypt_same_node", True),
        ("ADMIN_PORT", "1", "admin_port", 1),
        ("PROXY_CONFIG", "{proxyAdminPort: 15100, statsPort: 15120, other: [1]}", "admin_port", 15100),
        ("PROXY_CONFIG", "{proxyAdminPort: 15100, statsPort: 15120}", "stats_port", 15120),
        ("PROXY_CONFIG", "discoveryAddress: istiod.x:15012", "xds_address", "https://istiod.x:15012"),
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1", "ca_address", "https://istiod.istio-system.svc:15012"),
        ("LOCAL_XDS_PATH", "/f", "xds_address", ""),
        ("LOCAL_XDS", "workloads: []\n", "local_xds", "workloads: []\n"),
        ("LOCAL_CA_DIR", "/ca", "ca_address", ""),
        ("XDS_HEADER_X_Token", "1", "xds_headers", (("x_token", "1"),)),
    ],
)
def test_one_variable(name: str, value: str, field: str, expected: object) -> None:
    assert getattr(config(**{name: value}), field) == expected


def test_what_overrides_what() -> None:
    assert config(ISTIO_META_CLUSTER_ID="a", CLUSTER_ID="b").cluster_id == "a"
    assert config(ADMIN_PORT="1", PROXY_CONFIG="proxyAdminPort: 2").admin_port == 1
    mesh = "defaultConfig:\n  proxyAdminPort: 3\n  statsPort: 4\n"
    found = config(mesh, PROXY_CONFIG="proxyAdminPort: 2")
    assert (found.admin_port, found.stats_port) == (2, 4)
    assert config("trustDomain: x").admin_port == 15000
    assert config("defaultConfig:").admin_port == 15000
    assert config(CONNECTION_TERMINATION_DEADLINE="7s", TERMINATION_GRACE_PERIOD_SECONDS="30").termination_deadline == 7.0
    assert config(LOCAL_XDS_PATH="/f", XDS_ADDRESS="a:1").xds_address == "https://a:1"


def test_dedicated_mode() -> None:
    found = config(PROXY_MODE="dedicated", PROXY_WORKLOAD_INFO="ns/name/sa")
    assert found.workload_info == WorkloadInfo("name", "ns", "sa")
    assert found.packet_mark is None
    assert config(PROXY_WORKLOAD_INFO="ns/name/sa").workload_info is None
    assert "needs PROXY_WORKLOAD_INFO" in problems(PROXY_MODE="dedicated")[0]
    own = {"POD_NAME": "p", "POD_NAMESPACE": "ns", "SERVICE_ACCOUNT": "sa"}
    assert config(**own).self_proxy == WorkloadInfo("p", "ns", "sa")
    assert config(POD_NAME="p").self_proxy is None
    assert config(PROXY_MODE="dedicated", PROXY_WORKLOAD_INFO="a/b/c", **own).self_proxy is None


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("PROXY_MODE", "sidecar", "one of shared, dedicated"),
        ("PROXY_WORKLOAD_INFO", "a/b", "namespace/name/serviceaccount"),
        ("PROXY_WORKLOAD_INFO", "a//c", "namespace/name/serviceaccount"),
        ("SECRET_TTL", "soon", "a duration such as 10s"),
        ("SECRET_TTL", "-1s", "a duration such as 10s"),
        ("SECRET_TTL", "999999d", "at most ten years"),
        ("IPV6_ENABLED", "yes", "true or false"),
        ("PACKET_MARK", "0", "a packet mark from 1"),
        ("PACKET_MARK", "0x100000000", "a packet mark from 1"),
        ("POOL_MAX_STREAMS_PER_CONNECTION", "0", "a whole number from 1"),
        ("HTTP2_FRAME_SIZE", "16383", "from 16384 to 16777215"),
        ("HTTP2_STREAM_WINDOW_SIZE", "1e6", "a whole number"),
        ("ADMIN_PORT", "65536", "from 1 to 65535"),
        ("XDS_ADDRESS", "ftp://a", "https://host:port"),
        ("NODE_NAME", "a\nb", "without control characters"),
        ("LOG_FORMAT", "xml", "one of text, json"),
        ("COMPLIANCE_POLICY", "pqc", "no compliance policy"),
        ("CRL_PATH", "/etc/crl.pem", "not enforced"),
        ("ENABLE_PROXY", "false", "this program is the proxy"),
    ],
)
def test_a_bad_value_is_named_with_what_is_accepted(name: str, value: str, accepted: str) -> None:
    (problem,) = problems(**{name: value})
    assert problem.startswith(f"{name}={value!r}: ")
    assert accepted in problem


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("proxyAdminPort: x", "proxyAdminPort: expected a port"),
        ("[]", "a mapping"),
        ("a: [", "not YAML"),
        ("discoveryAddress: ftp://x", "discoveryAddress: expected https"),
        ("statsPort: 15021", "give each its own"),
    ],
)
def test_a_bad_proxy_config(body: str, cause: str) -> None:
    assert cause in problems(PROXY_CONFIG=body)[0]


def test_all_problems_at_once_and_what_must_not_come_together() -> None:
    assert len(problems(IPV6_ENABLED="x", SECRET_TTL="x", LOCAL_XDS="a", LOCAL_XDS_PATH="b", PROXY_CONFIG="[")) == 4
    assert "one unread stream" in problems(HTTP2_CONNECTION_WINDOW_SIZE="65535")[0]


def test_known_variables_without_effect_are_listed() -> None:
    found = config(ZTUNNEL_WORKER_THREADS="4", FAKE_CA="true", PROXY_CONFIG="concurrency: 2", SOMETHING_ELSE="x").ignored
    assert [name for name, _ in found] == ["ZTUNNEL_WORKER_THREADS", "FAKE_CA", "PROXY_CONFIG concurrency"]
    assert all(why for _, why in found)


def test_help_has_every_variable() -> None:
    described = {row.name: row for row in Config.describe()}
    assert len(described) == len(VARIABLES)
    assert described["SECRET_TTL"].default == "24h"
    assert described["IPV6_ENABLED"].default == "true"
    assert all(row.meaning for row in described.values())


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("10s", 10), ("5m", 300), ("1h30m", 5400), ("100ms", 0.1), ("1.5s", 1.5), ("2d", 172800), ("30", 30), ("0", 0),
     ("1m 1s", None), ("", None), ("s", None), ("1", 1), ("1x", None), ("1s1", None), ("١s", None), ("1e9s", None)],
)  # fmt: skip
def test_durations(value: str, seconds: float | None) -> None:
    if seconds is None:
        with pytest.raises(ValueError, match="a duration such as"):
            values.duration(value)
    else:
        assert values.duration(value) == pytest.approx(seconds)


@given(
    st.dictionaries(st.sampled_from([n for v in VARIABLES for n in v.names] + ["PROXY_CONFIG"]), st.text(max_size=30)), st.text()
)
def test_any_environment_is_read_or_refused(env: dict[str, str], mesh: str) -> None:
    try:
        found = Config.from_env(env, mesh)
    except ConfigError as error:
        refused = error.problems
    else:
        assert found.termination_deadline >= 0
        return
    assert refused
