"""The static file: what it may say, and how it is refused."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.model import Action, Authorization, Match, Scope, StringMatch, StringMatchKind
from ztunnel.state import static
from ztunnel.state.errors import Problem, StaticFileError
from ztunnel.state.fields import MAX_PROBLEMS
from ztunnel.state.model import (
    AppTunnel,
    GatewayAddress,
    HealthPolicy,
    IpFamilies,
    LoadBalancer,
    LoadBalancerMode,
    Locality,
    NetworkMode,
    Protocol,
    Service,
    Status,
    Visibility,
    Workload,
)
from ztunnel.state.model import Scope as LocalityScope
from ztunnel.state.static import StaticState, read_static

FULL = """\
workloads:
- uid: c//Pod/default/web
  name: web
  namespace: default
  workloadIps: [10.0.0.1, "FD00:0::1", "::ffff:10.0.0.2"]
  protocol: HBONE
  network: n1
  trustDomain: td
  serviceAccount: sa
  node: node1
  hostname: web.example
  clusterId: c
  canonicalName: app
  canonicalRevision: "1.10"
  workloadName: web
  workloadType: deployment
  nativeTunnel: true
  waypoint: {destination: default/wp.svc}
  networkGateway: {destination: n2/10.0.9.9, hboneMtlsPort: 15010}
  applicationTunnel: {protocol: PROXY, port: 15088}
  authorizationPolicies: [default/p]
  status: Unhealthy
  locality: {region: r, zone: z, subzone: s}
  services:
    default/web.svc: {80: 8080, "81": 0}
  capacity: 3
- {uid: h, namespace: default, workloadIps: [192.168.0.1], networkMode: HostNetwork}
- {uid: i, namespace: default, workloadIps: [192.168.0.1], waypoint: null, trustDomain: ""}
services:
- name: web
  namespace: default
  hostname: web.svc
  vips: [n1/10.9.0.1, "/fd00:0::9"]
  cidrVips: [{network: n1, cidr: 10.0.0.0/8}]
  ports: {80: 8080}
  endpoints:
    i: {workloadUid: i, port: {80: 9090}, status: Healthy}
  subjectAltNames: ["spiffe://td/ns/a/sa/b"]
  waypoint: {destination: /10.0.8.1, hboneMtlsPort: 15009}
  weightedWaypoints:
  - {destination: {destination: default/a.svc}, weight: 3}
  - {destination: default/b.svc, hboneMtlsPort: 1, weight: 0}
  loadBalancer: {routingPreferences: [Network, Zone], mode: Failover, healthPolicy: AllowAll}
  ipFamilies: Dual
  canonical: true
  visibility: Namespace
policies:
- name: p
  namespace: default
  scope: WorkloadSelector
  action: Deny
  dryRun: false
  rules: [[[{principals: [{Exact: a}], destinationPorts: [80]}]]]
"""


def test_every_field_is_read() -> None:
    assert read_static(FULL, "f") == StaticState(
        workloads=(
            Workload(
                uid="c//Pod/default/web",
                namespace="default",
                addresses=("10.0.0.1", "fd00::1", "10.0.0.2"),
                name="web",
                network="n1",
                protocol=Protocol.HBONE,
                trust_domain="td",
                service_account="sa",
                node="node1",
                hostname="web.example",
                cluster_id="c",
                canonical_name="app",
                canonical_revision="1.10",
                workload_name="web",
                workload_type="deployment",
                native_tunnel=True,
                waypoint=GatewayAddress("default/wp.svc"),
                network_gateway=GatewayAddress("n2/10.0.9.9", 15010, True),
                application_tunnel=AppTunnel(True, 15088),
                authorization_policies=("default/p",),
                status=Status.UNHEALTHY,
                locality=Locality("r", "z", "s"),
                services={"default/web.svc": {80: 8080, 81: 0}},
                capacity=3,
            ),
            Workload(uid="h", namespace="default", addresses=("192.168.0.1",), network_mode=NetworkMode.HOST_NETWORK),
            Workload(uid="i", namespace="default", addresses=("192.168.0.1",), services={"default/web.svc": {80: 9090}}),
        ),
        services=(
            Service(
                name="web",
                namespace="default",
                hostname="web.svc",
                vips=("n1/10.9.0.1", "/fd00::9"),
                cidr_vips=(("n1", "10.0.0.0/8"),),
                ports={80: 8080},
                subject_alt_names=("spiffe://td/ns/a/sa/b",),
                waypoint=GatewayAddress("/10.0.8.1", 15009, True),
                weighted_waypoints=((GatewayAddress("default/a.svc"), 3), (GatewayAddress("default/b.svc", 1), 0)),
                load_balancer=LoadBalancer(
                    (LocalityScope.NETWORK, LocalityScope.ZONE), LoadBalancerMode.FAILOVER, HealthPolicy.ALLOW_ALL
                ),
                ip_families=IpFamilies.DUAL,
                canonical=True,
                visibility=Visibility.NAMESPACE,
            ),
        ),
        policies=(
            Authorization(
                name="p",
                namespace="default",
                scope=Scope.WORKLOAD_SELECTOR,
                action=Action.DENY,
                rules=(((Match(principals=(StringMatch(StringMatchKind.EXACT, "a"),), destination_ports=(80,)),),),),
            ),
        ),
    )


@pytest.mark.parametrize("text", ["{}", "workloads: []", "workloads: []\nservices: []\npolicies: []\n"])
def test_nothing_said_clearly(text: str) -> None:
    assert read_static(text, "f") == StaticState()


def problems(text: str) -> list[Problem]:
    with pytest.raises(StaticFileError) as caught:
        read_static(text, "state.yaml")
    assert str(caught.value).startswith(f"state.yaml: line {caught.value.problems[0].line}: ")
    return list(caught.value.problems)


def workload(line: str) -> str:
    return f"workloads:\n- uid: a\n  namespace: default\n  workloadIps: []\n  {line}\n"


def service(line: str) -> str:
    return f"services:\n- name: web\n  namespace: default\n  hostname: web.svc\n  {line}\n"


def policy(line: str) -> str:
    return f"policies:\n- name: p\n  namespace: default\n  scope: Global\n  action: Deny\n  dryRun: false\n  {line}\n"


@pytest.mark.parametrize(
    ("text", "line", "path", "cause"),
    [
        (workload("protocl: HBONE"), 5, "workloads[0].protocl", "'protocol' is meant?"),
        (workload("protocol: HBNE"), 5, "workloads[0].protocol", "'HBONE' is meant?"),
        (workload("protocol: [TCP]"), 5, "workloads[0].protocol", "expected one of TCP, HBONE, found a list"),
        (workload("status: healthy"), 5, "workloads[0].status", "'Healthy' is meant?"),
        (workload("capacity: -1"), 5, "workloads[0].capacity", "from 0 to 4294967295"),
        (workload("capacity: 1.5"), 5, "workloads[0].capacity", "found the number 1.5"),
        (workload("capacity: '1'"), 5, "workloads[0].capacity", "found the string '1'"),
        (workload("capacity: true"), 5, "workloads[0].capacity", "found the boolean true"),
        (workload("nativeTunnel: yes"), 5, "workloads[0].nativeTunnel", "expected true or false, found the string 'yes'"),
        (workload("node: 12"), 5, "workloads[0].node", "found the number 12; quote it"),
        (workload("node:"), 5, "workloads[0].node", "found nothing"),
        (workload(f"node: {'x' * 1025}"), 5, "workloads[0].node", "at most 1024"),
        (workload(r'node: "a\nb"'), 5, "workloads[0].node", "printable"),
        (workload("trustDomain: a/b"), 5, "workloads[0].trustDomain", "is not a name"),
        (workload("network: a b"), 2, "workloads[0].network", "is not a network name"),
        (workload("hostname: a b"), 2, "workloads[0].hostname", "is not a hostname"),
        (workload("workloadType: statefulset"), 5, "workloads[0].workloadType", "deployment, cronjob, pod, job"),
        (workload("waypoint: default/wp.svc"), 5, "workloads[0].waypoint", "expected a mapping"),
        (workload("waypoint: {destination: wp.svc}"), 5, "workloads[0].waypoint.destination", "is not of the form"),
        (workload("waypoint: {}"), 5, "workloads[0].waypoint.destination", "missing"),
        (workload("waypoint: {destination: a/b, hboneMtlsPort: 0}"), 5, "workloads[0].waypoint.hboneMtlsPort", "from 1 to 65535"),
        (workload("applicationTunnel: {protocol: HTTP}"), 5, "workloads[0].applicationTunnel.protocol", "NONE, PROXY"),
        (workload("authorizationPolicies: [p]"), 5, "workloads[0].authorizationPolicies[0]", "namespace/name"),
        (workload("services: {web.svc: {}}"), 5, 'workloads[0].services["web.svc"]', "namespace/hostname"),
        (workload("services: {a/b: {0: 1}}"), 5, 'workloads[0].services["a/b"]["0"]', "not a port from 1 to 65535"),
        (workload("services: {a/b: {1: 65536}}"), 5, 'workloads[0].services["a/b"]["1"]', "expected a port"),
        (workload("services: {a/b: {1: 1, 1: 2}}"), 5, 'workloads[0].services["a/b"]["1"]', "given twice"),
        (workload("services: {a/b: {1: 1, 01: 2}}"), 5, 'workloads[0].services["a/b"]["01"]', "given twice"),
        (workload("services: []"), 5, "workloads[0].services", "expected a mapping, found a list"),
        (workload("uid: b"), 5, "workloads[0].uid", "given twice; the first is on line 2"),
        (workload("locality: {region: r, zon: z}"), 5, "workloads[0].locality.zon", "'zone' is meant?"),
        ("workloads: [{uid: '', namespace: a, workloadIps: []}]", 1, "workloads[0].uid", "Kubernetes//Pod/"),
        ("workloads: [{namespace: a, workloadIps: []}]", 1, "workloads[0].uid", "missing"),
        ("workloads: [{uid: a, workloadIps: []}]", 1, "workloads[0].namespace", "missing"),
        ("workloads: [{uid: a, namespace: '', workloadIps: []}]", 1, "workloads[0].namespace", "is not a name"),
        ("workloads: [{uid: a, namespace: a}]", 1, "workloads[0].workloadIps", "missing"),
        ("workloads: [{uid: a, namespace: a, workloadIps: 10.0.0.1}]", 1, "workloads[0].workloadIps", "expected a list"),
        ("workloads: [{uid: a, namespace: a, workloadIps: [10.0.0]}]", 1, "workloads[0].workloadIps[0]", "not an IP address"),
        ("workloads: [{uid: a, namespace: a, workloadIps: [10.1]}]", 1, "workloads[0].workloadIps[0]", "quote it"),
        ("workloads: [{uid: a, namespace: a, workloadIps: ['::1%lo']}]", 1, "workloads[0].workloadIps[0]", "not an IP address"),
        (
            "workloads: [{uid: a, namespace: a, workloadIps: [10.0.0.1, '::ffff:10.0.0.1']}]",
            1, "workloads[0].workloadIps[1]", "given twice",
        ),
        (
            "workloads:\n- {uid: a, namespace: a, workloadIps: []}\n- {uid: a, namespace: a, workloadIps: []}",
            3, "workloads[1].uid", "already that of the workload on line 2",
        ),
        (
            "workloads:\n- {uid: a, namespace: a, workloadIps: [10.0.0.1]}\n- {uid: b, namespace: a, workloadIps: [10.0.0.1]}",
            3, "workloads[1].workloadIps", "address 10.0.0.1 is already that of 'a' on line 2",
        ),
        (service("ports: {80: http}"), 5, 'services[0].ports["80"]', "expected a port"),
        (service("vips: [10.9.0.1]"), 5, "services[0].vips[0]", "network/ip"),
        (service("vips: [/10.9.0]"), 5, "services[0].vips[0]", "network/ip"),
        (service("cidrVips: [{cidr: 10.0.0.1/8}]"), 5, "services[0].cidrVips[0].cidr", "10.0.0.0/8 is meant?"),
        (service("cidrVips: [{cidr: 10.0.0.0}]"), 5, "services[0].cidrVips[0].cidr", "10.0.0.0/32"),
        (service("cidrVips: [{cidr: 10.0.0.0/33}]"), 5, "services[0].cidrVips[0].cidr", "not a CIDR"),
        (service("cidrVips: [{network: n}]"), 5, "services[0].cidrVips[0].cidr", "missing"),
        (service("subjectAltNames: [a]"), 5, "services[0].subjectAltNames[0]", "SPIFFE"),
        (service("weightedWaypoints: [{destination: a/b}]"), 5, "services[0].weightedWaypoints[0].weight", "missing"),
        (service("loadBalancer: {mode: Random}"), 5, "services[0].loadBalancer.mode", "Standard, Strict"),
        (service("loadBalancer: {routingPreferences: [Rack]}"), 5, "services[0].loadBalancer.routingPreferences[0]", "Region"),
        (service("endpoints: {nope: {}}"), 5, "services[0].endpoints.nope", "no workload has the uid 'nope'"),
        ("services:\n- {name: a, namespace: b, hostname: c}\n- {name: d, namespace: b, hostname: c}", 3, "services[1]", "'b/c'"),
        (policy("rule: []"), 2, "policies[0]", "did you mean rules"),
        (policy("action: Allow"), 7, "policies[0].action", "given twice"),
        (policy("rules: [[[{principal: []}]]]"), 7, "policies[0].rules[0][0][0]", "did you mean principals"),
        (policy("rules:\n  - - - principals:\n        - Exact: 3"), 9, "policies[0].rules[0][0][0].principals[0].Exact", "number"),
        (policy("rules: []") + policy("rules: []").removeprefix("policies:\n"), 8, "policies[1]", "'default/p'"),
        ("policies: [{name: p, namespace: a, scope: Global, action: Log, dryRun: false}]", 1, "policies[0].action", "Allow"),
        ("workload: []", 1, "workload", "'workloads' is meant?"),
        ("[]", 1, "", "expected a mapping, found a list"),
        ("workloads: 3", 1, "workloads", "expected a list"),
        ("", 1, "", "empty"),
        ("# only words\n", 1, "", "empty"),
        ("a: 1\n---\nb: 2", 2, "", "second document"),
        ("a: &x 1", 1, "", "anchor"),
        ("a: *x", 1, "", "alias"),
        ("a:\n  !!str b", 2, "", "tag"),
        ("? [a]\n: b", 1, "", "as a key"),
        ("a: b: c", 1, "", "not YAML"),
        ("a: [", 2, "", "not YAML"),
        ("a\x00", 1, "", "not YAML"),
        ("\ud800", 1, "", "not YAML"),
        ("[" * 100_000, 1, "", "nested more than"),
        ("- " * 100_000, 1, "", "nested more than"),
        ("{a: " * 100_000, 1, "", "nested more than"),
    ],
)  # fmt: skip
def test_refused_with_line_path_and_cause(text: str, line: int, path: str, cause: str) -> None:
    found = problems(text)
    assert [(p.line, p.path) for p in found] == [(line, path)], found
    assert cause in found[0].cause


def test_many_problems_are_told_at_once_but_not_endlessly() -> None:
    found = problems("workloads:\n" + "- {uid: a, bogus: 1}\n" * 100)
    assert len(found) == MAX_PROBLEMS
    assert {p.line for p in found} > {2, 3, 4}
    assert len(problems("workloads:\n- {uid: a}\nservices:\n- {}\n")) == 5


def test_the_same_address_in_another_network_or_on_the_host_is_no_conflict() -> None:
    rows = ("uid: a", "uid: b, network: n2", "uid: c, networkMode: HostNetwork")
    text = "workloads:\n" + "".join(f"- {{{row}, namespace: a, workloadIps: [10.0.0.1]}}\n" for row in rows)
    assert len(read_static(text, "f").workloads) == 3


def test_endpoints_must_agree_with_their_workloads() -> None:
    base = (
        "workloads: [{uid: a, namespace: a, workloadIps: [], services: {a/b: {80: 1}}}]\n"
        "services: [{name: b, namespace: a, hostname: b, endpoints: {a: %s}}]"
    )
    assert read_static(base % "{port: {80: 1}}", "f").workloads[0].services == {"a/b": {80: 1}}
    assert "other ports" in problems(base % "{port: {80: 2}}")[0].cause
    assert "status" in problems(base % "{port: {80: 1}, status: Unhealthy}")[0].cause


def test_a_file_over_the_bound_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "MAX_BYTES", 100)
    assert "larger than 100 bytes" in problems("#" * 101)[0].cause
    assert "larger than 100 bytes" in problems("ä" * 51)[0].cause
    assert "empty" in problems("#" * 100)[0].cause


def refuses_or_reads(text: str) -> None:
    try:
        read_static(text, "f")
        return
    except StaticFileError as error:
        found = error.problems
    assert 0 < len(found) <= MAX_PROBLEMS
    assert all(p.line > 0 and p.cause for p in found)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    refuses_or_reads(text)


@settings(max_examples=200)
@given(st.data())
def test_any_damage_to_a_good_file_is_read_or_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(FULL)))
    length = data.draw(st.integers(0, 40))
    patch = data.draw(st.text(alphabet="abz09:-,[]{}\"'&*!|>%@`# \n\t~/.é\x85", max_size=10))
    refuses_or_reads(FULL[:at] + patch + FULL[at + length :])


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["10.0.0.1", "a/b", "TCP"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["uid", "waypoint", "port", "80", "a/b"]), inner),
    max_leaves=8,
)
_fields = st.dictionaries(
    st.sampled_from(["uid", "namespace", "workloadIps", "services", "waypoint", "locality", "capacity"]), _values
)


@given(st.lists(_fields, max_size=3), _values, _values)
def test_any_value_in_any_place_is_read_or_refused(workloads: list[object], services: object, policies: object) -> None:
    document = {"workloads": workloads, "services": [services], "policies": [policies]}
    refuses_or_reads(yaml.safe_dump(document))
