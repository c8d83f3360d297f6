"""Token buckets."""

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.hbone.budget import Budget


def test_a_burst_then_a_rate() -> None:
    budget = Budget(3, 2, 10.0)
    assert [budget.spend(10.0) for _ in range(4)] == [True, True, True, False]
    assert not budget.spend(10.4), "the failed one left a debt"
    assert budget.spend(12.0)
    assert [budget.spend(1_000.0) for _ in range(4)] == [True, True, True, False], "never more than the burst"


def test_a_debt_is_bounded() -> None:
    budget = Budget(3, 2, 0.0)
    assert not budget.spend(0.0, 1_000)
    assert budget.spend(1.0)


def test_earning() -> None:
    budget = Budget(3, 0, 0.0)
    budget.earn(100)
    assert [budget.spend(0.0) for _ in range(4)] == [True, True, True, False]
    budget.earn(2)
    assert [budget.spend(0.0) for _ in range(2)] == [True, False]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 2))))
def test_never_more_than_burst_and_rate(steps: list[tuple[float, float]]) -> None:
    budget, now, spent = Budget(5, 3, 0.0), 0.0, 0.0
    for wait, cost in steps:
        now += wait
        if budget.spend(now, cost):
            spent += cost
    assert spent <= 5 + 3 * now + 1e-6
