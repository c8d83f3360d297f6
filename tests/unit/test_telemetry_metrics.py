"""The metric store: ztunnel's names, labels and their order, in both formats."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from ztunnel.link.messages import Counters, Gauges, Party, Refusals, SeriesDef
from ztunnel.telemetry.exposition import Format, accepts_gzip, negotiate
from ztunnel.telemetry.families import FAMILIES, MAX_LABEL_SETS, Registry
from ztunnel.telemetry.metrics import MAX_GAUGES, SLICE, MetricStore
from ztunnel.telemetry.series import guess_service_name

SOURCE = Party(
    workload="sleep",
    pod="sleep-1",
    namespace="default",
    canonical_service="sleep",
    canonical_revision="v1",
    principal="spiffe://cluster.local/ns/default/sa/sleep",
    app="sleep",
    version="v1",
    cluster="Kubernetes",
    region="r1",
    zone="z1",
)
DESTINATION = Party(workload="httpbin", pod="httpbin-1", namespace="web", canonical_service="httpbin")
SERIES = SeriesDef(1, "source", SOURCE, DESTINATION, "web/httpbin.web.svc.cluster.local", "mutual_tls", "tunnel")
HEAD = (
    'reporter="source",source_workload="sleep",source_canonical_service="sleep",source_canonical_revision="v1",'
    'source_workload_namespace="default",source_principal="spiffe://cluster.local/ns/default/sa/sleep",source_app="sleep",'
    'source_version="v1",source_cluster="Kubernetes",destination_service="httpbin.web.svc.cluster.local",'
    'destination_service_namespace="web",destination_service_name="httpbin",destination_workload="httpbin",'
    'destination_canonical_service="httpbin",destination_canonical_revision="unknown",destination_workload_namespace="web",'
    'destination_principal="unknown",destination_app="unknown",destination_version="unknown",destination_cluster="unknown",'
    'request_protocol="tcp",'
)
TAIL = (
    'connection_security_policy="mutual_tls",source_region="r1",source_zone="z1",destination_region="unknown",'
    'destination_zone="unknown"'
)


def text(store: MetricStore, form: Format = Format.TEXT) -> str:
    return b"".join(store.render(form)).decode()


def tcp_lines(store: MetricStore) -> list[str]:
    return [line for line in text(store).splitlines() if line.startswith("istio_tcp_")]


def test_one_connection_is_these_lines() -> None:
    store = MetricStore()
    store.define(SERIES)
    store.counters(Counters(((1, 1, 84, 152),), ((1, "complete", 1),)))
    assert tcp_lines(store) == [
        f'istio_tcp_connections_opened_total{{{HEAD}response_flags="-",{TAIL}}} 1',
        f'istio_tcp_connections_closed_total{{{HEAD}response_flags="-",{TAIL}}} 1',
        f'istio_tcp_received_bytes_total{{{HEAD}response_flags="-",{TAIL}}} 84',
        f'istio_tcp_sent_bytes_total{{{HEAD}response_flags="-",{TAIL}}} 152',
    ]


def test_a_denied_connection_is_opened_without_flag_and_closed_and_failed_with_it() -> None:
    store = MetricStore()
    store.define(SERIES)
    store.counters(Counters(((1, 2, 0, 0),), ((1, "policy_denied", 1), (1, "policy_not_allowed", 1))))
    assert tcp_lines(store) == [
        f'istio_tcp_connections_opened_total{{{HEAD}response_flags="-",{TAIL}}} 2',
        f'istio_tcp_connections_closed_total{{{HEAD}response_flags="DENY",{TAIL}}} 2',
        f'istio_tcp_received_bytes_total{{{HEAD}response_flags="-",{TAIL}}} 0',
        f'istio_tcp_sent_bytes_total{{{HEAD}response_flags="-",{TAIL}}} 0',
        f'istio_tcp_connections_failed_total{{{HEAD}response_flags="DENY",{TAIL}}} 2',
    ]


def test_region_and_zone_are_left_out_when_neither_end_is_known() -> None:
    store = MetricStore()
    store.define(SeriesDef(1, "source", Party(), Party(), "", "unknown", "passthrough"))
    opened = tcp_lines(store)[0]
    assert "region" not in opened
    assert "zone" not in opened
    assert opened.endswith('connection_security_policy="unknown"} 0')


def test_deltas_add_up_and_series_that_differ_in_path_only_are_one() -> None:
    store = MetricStore()
    store.define(SERIES)
    store.define(msgspec.structs.replace(SERIES, id=2, path="same_node"))
    store.counters(Counters(((1, 1, 5, 7), (2, 1, 5, 7)), ()))
    store.counters(Counters(((1, 0, 90, 0),), ()))
    assert [line.rpartition(" ")[2] for line in tcp_lines(store)] == ["2", "100", "14"]
    assert 'ambient_connections_opened_total{reporter="source",path="same_node"} 1\n' in text(store)


def test_reasons_and_refusals_have_metrics_of_ours() -> None:
    store = MetricStore(build="1.2.3")
    store.define(SERIES)
    store.counters(Counters((), ((1, "client_reset", 3),)))
    store.refusals(Refusals((("outbound", "no_healthy_upstream", 2), ("outbound", "of_tomorrow", 1))))
    shown = text(store)
    assert 'ambient_connections_closed_total{reporter="source",reason="client_reset"} 3\n' in shown
    assert 'ambient_refusals_total{direction="outbound",reason="no_healthy_upstream"} 2\n' in shown
    assert 'ambient_refusals_total{direction="outbound",reason="internal"} 1\n' in shown
    assert 'istio_build{component="ztunnel",tag="1.2.3"} 1\n' in shown


def test_series_beyond_the_limit_are_folded_into_overflow() -> None:
    store = MetricStore(max_series=2)
    for id_ in range(1, 5):
        store.define(msgspec.structs.replace(SERIES, id=id_, source=Party(workload=f"w{id_}")))
    store.counters(Counters(tuple((id_, 1, 0, 0) for id_ in range(1, 5)), ()))
    opened = [line for line in tcp_lines(store) if line.startswith("istio_tcp_connections_opened_total")]
    assert len(opened) == 3
    assert 'source_workload="overflow"' in opened[2]
    assert opened[2].endswith(" 2")
    assert store.registry.value("ambient_series_overflow") == 2


def test_ids_are_bounded_and_counts_for_unknown_ones_are_counted() -> None:
    store = MetricStore(max_series=1)
    for id_ in range(1, 9):
        store.define(msgspec.structs.replace(SERIES, id=id_))
    store.counters(Counters(((8, 1, 0, 0),), ((99, "complete", 1),)))
    assert store.registry.value("ambient_unknown_series") == 2


def test_gauges_of_the_data_plane() -> None:
    store = MetricStore()
    store.gauges(Gauges({"sockets_open_source": 4.0, "pool tunnels": 2.0, "wakeups_total": 7.0}))
    shown = text(store)
    assert 'istio_tcp_sockets_open{reporter="source"} 4\n' in shown
    assert "ambient_dataplane_pool_tunnels 2\n" in shown
    assert "# TYPE ambient_dataplane_wakeups_total counter\nambient_dataplane_wakeups_total 7\n" in shown
    store.gauges(Gauges({f"g{n}": 1.0 for n in range(2 * MAX_GAUGES)}))
    assert text(store).count("\nambient_dataplane_g") == MAX_GAUGES - 2


def test_slices_are_small_and_the_store_may_change_between_them() -> None:
    store = MetricStore()
    for id_ in range(1, 3 * SLICE):
        store.define(msgspec.structs.replace(SERIES, id=id_, source=Party(workload=f"w{id_}")))
    slices = store.render(Format.TEXT)
    first, second = next(slices), next(slices)
    store.define(msgspec.structs.replace(SERIES, id=9999))
    rest = list(slices)
    assert first.startswith(b"# HELP istio_tcp_connections_opened_total ")
    assert second.count(b"\n") == SLICE
    assert max(part.count(b"\n") for part in rest) <= SLICE + 2


@pytest.mark.parametrize("form", list(Format))
@given(
    workload=st.text(),
    service=st.text(),
    value=st.floats(),
    reporter=st.text(),
)
def test_any_text_survives_the_parsers_of_prometheus(
    form: Format, workload: str, service: str, value: float, reporter: str
) -> None:
    store = MetricStore()
    store.define(SeriesDef(1, reporter, Party(workload=workload), Party(), service, "unknown", "tunnel"))
    store.counters(Counters(((1, 1, 2, 3),), ((1, "peer_timeout", 1),)))
    store.gauges(Gauges({"g": value}))
    shown = text(store, form)
    parse = parse_openmetrics if form is Format.OPENMETRICS else parse_text
    samples = {sample.name: sample for family in parse(shown) for sample in family.samples}
    opened = samples["istio_tcp_connections_opened_total"]
    assert opened.value == 1
    if "\\" not in workload:  # prometheus_client's text parser reads \\n after an escaped backslash as a newline
        assert opened.labels["source_workload"] == (workload.encode("utf-8", "replace").decode() or "unknown")
    assert samples["istio_tcp_connections_failed_total"].labels["response_flags"] == "NETWORK_POLICY"


def test_every_family_renders_in_both_formats() -> None:
    registry = Registry()
    for family in FAMILIES:
        registry.set(family.name, 1.5, *("x" for _ in family.label_names))
    shown = b"".join(registry.render(Format.OPENMETRICS)).decode()
    assert len(list(parse_openmetrics(shown + "# EOF\n"))) == len(FAMILIES)
    assert "# TYPE istio_xds_message counter\nistio_xds_message_total{" in shown
    assert "# TYPE istio_xds_message_total counter\n" in b"".join(registry.render(Format.TEXT)).decode()


def test_registry_bounds_label_sets_and_knows_its_names() -> None:
    registry = Registry()
    for n in range(MAX_LABEL_SETS + 5):
        registry.add("istio_xds_message", 1, f"url{n}")
    assert registry.value("istio_xds_message", "overflow") == 5
    registry.replace("istio_xds_message", {("only",): 3})
    assert registry.value("istio_xds_message", "overflow") == 0
    assert registry.value("istio_xds_message", "only") == 3
    with pytest.raises(KeyError):
        registry.set("istio_xds_mesage", 1, "x")
    with pytest.raises(ValueError, match="has the labels"):
        registry.set("istio_xds_message", 1)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", Format.TEXT),
        ("*/*", Format.TEXT),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", Format.OPENMETRICS),
        ("application/openmetrics-text;q=0, text/plain", Format.TEXT),
        ("application/openmetrics-text;q=x", Format.TEXT),
    ],
)
def test_accept(accept: str, form: Format) -> None:
    assert negotiate(accept) is form


@pytest.mark.parametrize(("header", "yes"), [("gzip", True), ("br, gzip;q=0.5", True), ("gzip;q=0", False), ("", False)])
def test_accept_encoding(header: str, yes: bool) -> None:
    assert accepts_gzip(header) is yes


@pytest.mark.parametrize(
    ("service", "name"),
    [("web/httpbin.web.svc.cluster.local", "httpbin"), ("web/api.example.com", "api.example.com"), ("/x", "x"), ("", "")],
)
def test_service_name(service: str, name: str) -> None:
    assert guess_service_name(service) == name
