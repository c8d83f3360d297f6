"""One ZDS connection of the proxy, request by request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.state.model import WorkloadInfo
from ztunnel.zds import session as module
from ztunnel.zds.codec import Add, Del, Keep, Request, Snapshot, encode_request
from ztunnel.zds.errors import ZdsProtocolError
from ztunnel.zds.session import Action, NetnsInode, Nothing, Reject, Retain, Start, Stop, ZdsSession

INFO = WorkloadInfo("p", "ns", "sa")
ONE, TWO = NetnsInode(4, 101), NetnsInode(4, 102)


class Dialogue:
    """A session with what the shell around it would hold."""

    def __init__(self, **held: NetnsInode) -> None:
        self.session = ZdsSession()
        self.held: dict[str, tuple[int, int]] = dict(held)
        self.infos: dict[str, WorkloadInfo] = {}

    def says(self, request: Request, *netns: NetnsInode) -> Action:
        action = self.session.received(encode_request(request), netns, self.held, self.infos)
        if isinstance(action, Start):
            self.held[action.uid] = netns[0]
            self.infos[action.uid] = action.info
        elif isinstance(action, Stop):
            self.held.pop(action.uid, None)
        return action


def test_snapshot_then_live() -> None:
    d = Dialogue()
    assert d.says(Add("a", INFO), ONE) == Start("a", INFO, replaces=False)
    assert not d.session.synced
    assert d.says(Snapshot()) == Retain(frozenset("a"))
    assert d.session.synced
    assert d.says(Add("b", INFO), TWO) == Start("b", INFO, replaces=False)
    assert d.says(Del("a")) == Stop("a")


def test_add_twice_is_nothing() -> None:
    d = Dialogue()
    d.says(Add("a", INFO), ONE)
    assert d.says(Add("a", INFO), ONE) == Nothing()


def test_add_of_a_pod_held_from_before_is_nothing_but_keeps_it() -> None:
    d = Dialogue(a=ONE)
    assert d.says(Add("a", INFO), ONE) == Nothing()
    assert d.says(Snapshot()) == Retain(frozenset("a"))


def test_changed_netns_replaces() -> None:
    d = Dialogue(a=ONE)
    assert d.says(Add("a", INFO), TWO) == Start("a", INFO, replaces=True)


def test_same_inode_of_another_device_replaces() -> None:
    d = Dialogue(a=ONE)
    assert d.says(Add("a", INFO), NetnsInode(5, 101)) == Start("a", INFO, replaces=True)


def test_changed_service_account_replaces() -> None:
    d = Dialogue()
    d.says(Add("a", INFO), ONE)
    other = WorkloadInfo("p", "ns", "other")
    assert d.says(Add("a", other), ONE) == Start("a", other, replaces=True)


def test_add_del_add() -> None:
    d = Dialogue()
    d.says(Add("a", INFO), ONE)
    assert d.says(Del("a")) == Stop("a")
    assert d.says(Add("a", INFO), ONE) == Start("a", INFO, replaces=False)
    assert d.says(Snapshot()) == Retain(frozenset("a"))


def test_del_before_the_snapshot_ends_is_not_retained() -> None:
    d = Dialogue()
    d.says(Add("a", INFO), ONE)
    d.says(Del("a"))
    assert d.says(Snapshot()) == Retain(frozenset())


def test_del_of_an_unknown_pod_is_fine() -> None:
    assert Dialogue().says(Del("x")) == Stop("x")


def test_keep_known_and_unknown_after_reconnect() -> None:
    d = Dialogue(a=ONE)
    assert d.says(Keep("a")) == Nothing()
    assert d.says(Keep("never seen")) == Nothing()
    assert d.says(Snapshot()) == Retain(frozenset({"a", "never seen"}))


def test_snapshot_without_a_held_pod_does_not_retain_it() -> None:
    assert Dialogue(a=ONE).says(Snapshot()) == Retain(frozenset())


@pytest.mark.parametrize("late", [Keep("a"), Snapshot()])
def test_keep_and_snapshot_after_the_snapshot_break_the_protocol(late: Request) -> None:
    d = Dialogue()
    d.says(Snapshot())
    with pytest.raises(ZdsProtocolError):
        d.says(late)


@pytest.mark.parametrize(
    ("request_", "netns"),
    [(Add("a", INFO), ()), (Add("a", INFO), (ONE, TWO)), (Del("a"), (ONE,)), (Keep("a"), (ONE,)), (Snapshot(), (ONE,))],
)
def test_wrong_number_of_descriptors(request_: Request, netns: tuple[NetnsInode, ...]) -> None:
    with pytest.raises(ZdsProtocolError, match="descriptors"):
        Dialogue().says(request_, *netns)


def test_missing_workload_info_breaks_the_protocol() -> None:
    with pytest.raises(ZdsProtocolError, match="workload_info"):
        ZdsSession().received(b"\x0a\x04\x0a\x02u1", (ONE,), {}, {})


@pytest.mark.parametrize("info", [WorkloadInfo("p", "", "sa"), WorkloadInfo("p", "ns", ""), WorkloadInfo("p", "ns", "a/sa/admin")])
def test_names_that_cannot_be_an_identity_refuse_that_pod_alone(info: WorkloadInfo) -> None:
    d = Dialogue()
    assert isinstance(d.says(Add("bad", info), ONE), Reject)
    assert isinstance(d.says(Add("good", INFO), TWO), Start)


def test_a_snapshot_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PODS", 2)
    d = Dialogue()
    for uid in ("a", "b", "a"):
        d.says(Keep(uid))
    with pytest.raises(ZdsProtocolError, match="more than 2"):
        d.says(Keep("c"))


_uids = st.sampled_from("abc")
_steps = st.lists(st.tuples(st.sampled_from(["add", "keep", "del"]), _uids, st.sampled_from([ONE, TWO])), max_size=12)


@given(_steps)
def test_retained_is_what_was_named_last(steps: list[tuple[str, str, NetnsInode]]) -> None:
    d = Dialogue()
    expected: set[str] = set()
    for kind, uid, netns in steps:
        if kind == "add":
            d.says(Add(uid, INFO), netns)
            assert d.held[uid] == netns
        else:
            d.says(Keep(uid) if kind == "keep" else Del(uid))
        (expected.discard if kind == "del" else expected.add)(uid)
    assert d.says(Snapshot()) == Retain(frozenset(expected))
