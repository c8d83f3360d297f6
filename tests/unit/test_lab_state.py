"""ambient.lab.state and .store: the record is read strictly, as it says which namespaces get deleted."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambient.lab import plan
from ambient.lab.errors import LabBroken, LabSpecError
from ambient.lab.spec import LabSpec
from ambient.lab.state import LabState, Owner, decode_state, encode_state
from ambient.lab.store import Store

OWNER = Owner(pid=7, start_ticks=99, boot_id="b", pid_namespace=5)


def laid(name: str = "t") -> LabState:
    return plan.lay_out(LabSpec.simple(2, 2), name, "tok", OWNER)


def test_round_trip() -> None:
    assert decode_state(encode_state(laid()), "t") == laid()


@pytest.mark.parametrize("netns", ["amb-other-node-1", "amb-t-../../etc", "amb-tt-node-1", "", "amb-t", "amb-t-a b", "amb-t-a\nx"])
def test_foreign_namespace_is_refused(netns: str) -> None:
    state = laid()
    node = msgspec.structs.replace(state.nodes[0], netns=netns)
    with pytest.raises(LabBroken, match="foreign namespace"):
        decode_state(encode_state(msgspec.structs.replace(state, nodes=(node,))), "t")


def test_record_of_another_lab_is_refused() -> None:
    with pytest.raises(LabBroken, match="describes lab 't'"):
        decode_state(encode_state(laid()), "u")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_a_reasoned_error(data: bytes) -> None:
    with pytest.raises(LabBroken):
        decode_state(data, "t")


@given(st.data())
def test_damaged_record_never_reads_as_a_record_of_foreign_namespaces(data: st.DataObject) -> None:
    raw = bytearray(encode_state(laid()))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        state = decode_state(bytes(raw), "t")
    except LabBroken:
        return
    assert all(name.startswith(("amb-t-", "amb-t.")) and "/" not in name for name in state.netns_names())


def test_store_saves_loads_lists_and_deletes(tmp_path: Path) -> None:
    store = Store(tmp_path / "labs")
    assert store.names() == []
    assert store.load("t") is None
    with store.locked():
        store.save(laid())
        store.save(laid("other"))
    assert store.names() == ["other", "t"]
    assert store.load("t") == laid()
    assert (tmp_path / "labs" / "t.json").stat().st_mode & 0o777 == 0o600
    store.delete("t")
    store.delete("t")
    assert sorted(path.name for path in (tmp_path / "labs").iterdir()) == [".lock", "other.json"]


def test_store_takes_no_path_for_a_name(tmp_path: Path) -> None:
    with pytest.raises(LabSpecError):
        Store(tmp_path).load("../etc/passwd")


def test_store_passes_over_what_is_no_lab(tmp_path: Path) -> None:
    (tmp_path / "Not A Lab.json").write_text("{}")
    (tmp_path / "half.json").write_text("{")
    store = Store(tmp_path)
    assert store.names() == ["half"]
    with pytest.raises(LabBroken, match="not readable"):
        store.load("half")
