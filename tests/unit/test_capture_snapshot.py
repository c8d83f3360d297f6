"""Drift: what is missing, unexpected and different, in bounded reports."""

from hypothesis import given
from hypothesis import strategies as st

from capture.snapshot import MAX_REPORTED, Drift, Snapshot, compare


def drift(want: tuple[str, ...], have: tuple[str, ...]) -> Drift:
    return compare(Snapshot({"c": want}), Snapshot({"c": have}))


def test_equal_is_no_drift() -> None:
    assert not drift(("a", "b"), ("a", "b"))
    assert drift(("a",), ("a",)) == Drift()


def test_missing_inserted_changed_and_moved() -> None:
    assert drift(("a", "b"), ("b",)) == Drift(missing=("c: a",))
    assert drift(("a", "b"), ("a", "x", "b")) == Drift(unexpected=("c: x",))
    assert drift(("a", "b"), ("a", "x")) == Drift(differing=("c: is 'x', should be 'b'",))
    assert drift(("a", "b"), ("b", "a")) == Drift(differing=("c: the right rules in another order",))
    assert drift(("a",), ("a", "a")) == Drift(unexpected=("c: a",))


def test_whole_chains_and_the_guardrail() -> None:
    found = compare(Snapshot({"c": ("a",)}), Snapshot({"d": ()}, guard=True))
    assert found.missing == ("c: the whole chain",)
    assert found.unexpected[0] == "d: the whole chain"
    assert "closed" in found.unexpected[1]
    assert [line.partition(":")[0] for line in found.sentences()] == ["missing", "unexpected", "unexpected"]


def test_a_flood_of_rules_is_reported_within_bounds() -> None:
    found = drift(("a", "b"), ("a", *(f"x{n}" for n in range(100_000))))
    assert found.missing == ("c: b",)
    assert len(found.unexpected) == MAX_REPORTED + 1
    assert len((found + found).unexpected) == MAX_REPORTED + 1


lines = st.lists(st.sampled_from("abcd"), max_size=6).map(tuple)


@given(lines, lines)
def test_drift_is_empty_exactly_when_equal(want: tuple[str, ...], have: tuple[str, ...]) -> None:
    assert bool(drift(want, have)) == (want != have)
