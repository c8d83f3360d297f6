"""The state's indexes: who answers for an address, a name, a service, whatever the order of arrival."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.state.model import (
    HealthPolicy,
    LoadBalancer,
    NetworkMode,
    Protocol,
    Service,
    Status,
    Visibility,
    Workload,
    WorkloadInfo,
)
from ztunnel.state.store import State

KEY = "default/web.default.svc"


def workload(uid: str, *addresses: str, **fields: object) -> Workload:
    return Workload(uid=uid, **({"namespace": "default", "addresses": addresses} | fields))


def service(name: str = "web", namespace: str = "default", **fields: object) -> Service:
    return Service(**({"name": name, "namespace": namespace, "hostname": f"{name}.default.svc"} | fields))


def filled(*items: Workload | Service) -> State:
    state = State()
    for item in items:
        if isinstance(item, Workload):
            state.upsert_workload(item)
        else:
            state.upsert_service(item)
    return state


def test_a_workload_is_found_by_each_address_of_its_network() -> None:
    pod = workload("a", "10.0.0.1", "fd00::1", network="n1")
    state = filled(pod)
    assert state.workload_by_address("n1", "10.0.0.1") is pod
    assert state.workload_by_address("n1", "fd00::1") is pod
    assert state.workload_by_address("", "10.0.0.1") is None


def test_replacing_a_workload_moves_its_indexes() -> None:
    state = filled(workload("a", "10.0.0.1", "10.0.0.2", hostname="old", services={KEY: {}}))
    new = workload("a", "10.0.0.2", hostname="new", name="n")
    state.upsert_workload(new)
    assert state.workload_by_address("", "10.0.0.1") is None
    assert state.workload_by_address("", "10.0.0.2") is new
    assert state.workload_by_host("default", "old") is None
    assert state.workload_by_host("default", "new") is new
    assert not state.endpoints(KEY)


def test_host_network_workloads_are_not_found_by_address() -> None:
    state = filled(workload("a", "10.0.0.1", network_mode=NetworkMode.HOST_NETWORK))
    assert state.workload_by_address("", "10.0.0.1") is None
    state.upsert_workload(workload("a", "10.0.0.1"))
    assert state.workload_by_address("", "10.0.0.1") is not None
    state.upsert_workload(workload("a", "10.0.0.1", network_mode=NetworkMode.HOST_NETWORK))
    assert state.workload_by_address("", "10.0.0.1") is None


def test_of_two_with_one_address_the_pod_wins_then_hbone_then_the_last_to_arrive() -> None:
    entry = workload("c/networking/WorkloadEntry/a", "10.0.0.1", protocol=Protocol.HBONE)
    pod = workload("c//Pod/default/b", "10.0.0.1")
    meshed = workload("c//Pod/default/c", "10.0.0.1", protocol=Protocol.HBONE)
    next_one = workload("c//Pod/default/d", "10.0.0.1", protocol=Protocol.HBONE)
    for order in ((entry, pod), (pod, entry)):
        assert filled(*order).workload_by_address("", "10.0.0.1") is pod
    state = filled(meshed, pod, next_one, entry)
    assert state.workload_by_address("", "10.0.0.1") is next_one
    again = msgspec.structs.replace(meshed, status=Status.UNHEALTHY)
    state.upsert_workload(again)
    assert state.workload_by_address("", "10.0.0.1") is next_one
    state.remove_workload(next_one.uid)
    assert state.workload_by_address("", "10.0.0.1") is again
    state.remove_workload(meshed.uid)
    state.remove_workload(meshed.uid)
    assert state.workload_by_address("", "10.0.0.1") is pod


def test_the_local_workload_is_found_by_name_namespace_and_account() -> None:
    pod = workload("a", name="p", service_account="sa")
    state = filled(pod)
    assert state.local_workload(WorkloadInfo("p", "default", "sa")) is pod
    assert state.local_workload(WorkloadInfo("p", "default", "other")) is None


def test_endpoints_do_not_depend_on_the_order_of_arrival() -> None:
    pod, web = workload("a", services={KEY: {80: 8080}}), service()
    for order in ((pod, web), (web, pod)):
        assert dict(filled(*order).endpoints(KEY)) == {"a": pod}
    state = filled(pod, web)
    state.remove_service(KEY)
    state.remove_service(KEY)
    state.upsert_service(web)
    assert dict(state.endpoints(KEY)) == {"a": pod}
    state.remove_workload("a")
    assert not state.endpoints(KEY)


def test_unhealthy_endpoints_count_only_with_allow_all() -> None:
    sick = workload("a", services={KEY: {}}, status=Status.UNHEALTHY)
    state = filled(sick, service())
    assert not state.endpoints(KEY)
    state.upsert_service(service(load_balancer=LoadBalancer(health_policy=HealthPolicy.ALLOW_ALL)))
    assert dict(state.endpoints(KEY)) == {"a": sick}
    state.upsert_service(service())
    well = msgspec.structs.replace(sick, status=Status.HEALTHY)
    state.upsert_workload(well)
    assert dict(state.endpoints(KEY)) == {"a": well}


def test_a_shared_vip_goes_to_the_clients_namespace_then_the_canonical_then_the_first() -> None:
    vip = ("/10.9.0.1",)
    ours = service(namespace="ours", vips=vip)
    canon = service(namespace="z-canon", vips=vip, canonical=True)
    first = service(namespace="a-first", vips=vip)
    hidden = service(namespace="a-hidden", vips=vip, visibility=Visibility.NAMESPACE, canonical=True)
    state = filled(canon, first, ours, hidden)
    assert state.service_by_address("", "10.9.0.1", "ours") == ours
    assert state.service_by_address("", "10.9.0.1", "a-hidden") == hidden
    assert state.service_by_address("", "10.9.0.1", "x") == canon
    state.remove_service(canon.key)
    assert state.service_by_address("", "10.9.0.1", "x") == first
    assert state.service_by_host("web.default.svc", "x", "ours") == ours
    assert state.service_by_host("web.default.svc", "x") == first
    assert state.service_by_host("nope", "x") is None
    assert state.service_by_address("n1", "10.9.0.1", "x") is None


def test_a_service_seen_by_its_namespace_only_is_nothing_to_others() -> None:
    state = filled(service(vips=("/10.9.0.1",), visibility=Visibility.NAMESPACE))
    assert state.service_by_address("", "10.9.0.1", "other") is None
    assert state.service_by_host("web.default.svc", "other") is None


def test_cidr_vips() -> None:
    wide = service("wide", cidr_vips=(("", "10.0.0.0/8"), ("", "fd00::/16")))
    narrow = service("narrow", "b", cidr_vips=(("", "10.1.0.0/16"),))
    narrow_canon = service("canon", "c", cidr_vips=(("", "10.1.0.0/16"),), canonical=True)
    elsewhere = service("else", cidr_vips=(("n2", "10.0.0.0/8"),))
    exact = service("exact", vips=("/10.1.2.3",))
    state = filled(wide, narrow, narrow_canon, elsewhere, exact)
    assert state.service_by_address("", "10.2.0.1", "x") == wide
    assert state.service_by_address("", "10.1.0.1", "x") == narrow_canon, "the longest prefix, then the canonical one"
    assert state.service_by_address("", "10.1.0.1", "b") == narrow, "the client's namespace before the canonical one"
    assert state.service_by_address("", "10.1.0.1", "default") == wide, "the client's namespace before the longest prefix"
    assert state.service_by_address("", "10.1.2.3", "b") == exact, "an exact address before any range"
    assert state.service_by_address("", "fd00::9", "x") == wide
    assert state.service_by_address("n2", "10.2.0.1", "x") == elsewhere
    assert state.service_by_address("", "11.0.0.1", "x") is None
    assert state.service_by_address("", "no address", "x") is None
    for gone in (narrow, narrow_canon, wide, elsewhere):
        state.remove_service(gone.key)
    assert state.service_by_address("", "10.1.0.1", "x") is None
    assert state._cidrs.empty


_uids = st.sampled_from(["a", "b//Pod/x", "c//Pod/y"])
_steps = st.lists(
    st.tuples(
        st.sampled_from(["workload", "service", "drop workload", "drop service"]),
        _uids,
        st.sets(st.sampled_from(["10.0.0.1", "10.0.0.2"])),
        st.booleans(),
        st.booleans(),
    ),
    max_size=30,
)


@given(_steps)
def test_the_indexes_are_those_of_a_state_built_from_what_is_left(steps: list[tuple[str, str, set[str], bool, bool]]) -> None:
    state = State()
    for what, uid, addresses, one, two in steps:
        name = uid[0]
        if what == "workload":
            services = {f"default/{name}.default.svc": {80: 1}} if two else {}
            status = Status.HEALTHY if one else Status.UNHEALTHY
            state.upsert_workload(workload(uid, *sorted(addresses), status=status, services=services, hostname=name))
        elif what == "service":
            ranges = (("", "10.0.0.0/24"),) if one else ()
            state.upsert_service(service(name, vips=tuple(f"/{ip}" for ip in sorted(addresses)), cidr_vips=ranges))
        elif what == "drop workload":
            state.remove_workload(uid)
        else:
            state.remove_service(f"default/{name}.default.svc")
    fresh = filled(*state.workloads(), *state.services())
    for ip in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        found, expected = state.workload_by_address("", ip), fresh.workload_by_address("", ip)
        assert (found is None) == (expected is None)
        assert state.service_by_address("", ip, "x") == fresh.service_by_address("", ip, "x")
    for name in "abc":
        key = f"default/{name}.default.svc"
        assert dict(state.endpoints(key)) == dict(fresh.endpoints(key))
        assert state.workload_by_host("default", name) == fresh.workload_by_host("default", name)
    for index in ("_claims", "_by_address", "_members", "_healthy", "_by_vip", "_by_host", "_by_info"):
        assert getattr(state, index).keys() == getattr(fresh, index).keys(), index
