"""Differences between states, and the packets that carry them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.model import Action, Authorization, Match, Scope, StringMatch, StringMatchKind
from ztunnel.link.messages import (
    MAX_BATCH,
    MAX_PACKET,
    DownMessage,
    Policies,
    Services,
    StateBegin,
    StateEnd,
    Workloads,
    decode_down,
    encode,
)
from ztunnel.state.delta import MAX_ITEM, Changes, diff, messages
from ztunnel.state.errors import ItemTooLargeError
from ztunnel.state.model import Service, Workload
from ztunnel.state.static import StaticState


def workload(uid: str, name: str = "") -> Workload:
    return Workload(uid=uid, namespace="ns", name=name)


def service(hostname: str, name: str = "s") -> Service:
    return Service(name=name, namespace="ns", hostname=hostname)


def policy(name: str, *principals: str) -> Authorization:
    match = Match(principals=tuple(StringMatch(StringMatchKind.EXACT, p) for p in principals))
    return Authorization(name=name, namespace="ns", scope=Scope.NAMESPACE, action=Action.DENY, rules=(((match,),),))


def test_only_what_differs() -> None:
    old = StaticState((workload("a"), workload("b")), (service("s"), service("t")), (policy("p"), policy("q")))
    new = StaticState((workload("b", "x"), workload("c"), workload("a")), (service("t"),), (policy("q", "z"), policy("r")))
    assert diff(old, new) == Changes(
        workloads_upsert=(workload("b", "x"), workload("c")),
        services_remove=("ns/s",),
        policies_upsert=(policy("q", "z"), policy("r")),
        policies_remove=("ns/p",),
    )
    assert diff(new, new).empty
    assert not diff(old, new).empty
    assert diff(None, old) == Changes(old.workloads, (), old.services, (), old.policies, ())
    assert diff(old, StaticState()) == Changes((), ("a", "b"), (), ("ns/s", "ns/t"), (), ("ns/p", "ns/q"))


def test_policies_come_first_and_go_last() -> None:
    changes = Changes((workload("a"),), ("b",), (service("s"),), ("t",), (policy("p"),), ("q",))
    assert list(messages(changes, 7, full=False)) == [
        StateBegin(7, False),
        Policies(upsert=(policy("p"),)),
        Services(upsert=(service("s"),)),
        Workloads(upsert=(workload("a"),)),
        Workloads(remove=("b",)),
        Services(remove=("t",)),
        Policies(remove=("q",)),
        StateEnd(7),
    ]


def test_a_full_state_removes_nothing_by_name() -> None:
    changes = Changes((workload("a"),), ("b",), (), ("t",), (), ("q",))
    assert list(messages(changes, 1, full=True)) == [StateBegin(1, True), Workloads(upsert=(workload("a"),)), StateEnd(1)]
    assert list(messages(Changes(), 1, full=True)) == [StateBegin(1, True), StateEnd(1)]


def sent(found: list[DownMessage]) -> tuple[list[object], list[object]]:
    """Packs each message into a packet as the link does, and gives what arrives: upserts and removals."""
    upserts: list[object] = []
    removals: list[object] = []
    for message in found:
        packet = encode((message,))
        assert len(packet) <= MAX_PACKET
        assert decode_down(packet) == (message,)
        if isinstance(message, Workloads | Services | Policies):
            assert 0 < len(message.upsert) + len(message.remove) <= MAX_BATCH
            upserts += message.upsert
            removals += message.remove
    return upserts, removals


def test_slices_by_number() -> None:
    items = tuple(workload(f"w{i}") for i in range(2 * MAX_BATCH + 1))
    gone = tuple(f"g{i}" for i in range(MAX_BATCH + 1))
    found = list(messages(Changes(items, gone), 1, full=False))
    assert len(found) == 2 + 3 + 2
    assert sent(found) == (list(items), list(gone))


@given(st.lists(st.integers(1, 60_000), max_size=12))
def test_slices_by_size(sizes: list[int]) -> None:
    items = tuple(workload(f"w{i}", "x" * size) for i, size in enumerate(sizes))
    assert sent(list(messages(Changes(items), 1, full=True)))[0] == list(items)


def test_an_item_at_the_limit_fits_and_one_above_is_refused_before_anything_is_sent() -> None:
    base = len(encode([workload("w", "x" * 70_000)])) - 1 - 70_000
    fits = workload("w", "x" * (MAX_ITEM - base))
    assert sent(list(messages(Changes((workload("a"), fits, workload("b"))), 1, full=True)))[0] == [
        workload("a"),
        fits,
        workload("b"),
    ]
    too_large = workload("w", "x" * (MAX_ITEM - base + 1))
    with pytest.raises(ItemTooLargeError, match="workload w takes"):
        next(messages(Changes((workload("a"), too_large)), 1, full=True))
    with pytest.raises(ItemTooLargeError, match="policy ns/p takes"):
        next(messages(Changes(policies_upsert=(policy("p", *(f"{i:050}" for i in range(5000))),)), 1, full=True))
