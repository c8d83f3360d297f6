"""Medians of per-round ratios, and when a figure is judged."""

import pytest

from perf.judge import MESH, NONE, PEER, Figures, Verdict
from perf.targets import TARGETS


def rr(*rounds: tuple[float | None, float | None], loud: tuple[int, ...] = ()) -> Figures:
    """(no mesh, ours) rates of each round."""
    figures = Figures()
    for number, pair in enumerate(rounds, 1):
        for side, value in zip((NONE, MESH), pair, strict=True):
            values = None if value is None else {"rate": value}
            figures.add("cross.rr", side, number, values, ["rate"], loud=number in loud and side == MESH)
    return figures


def test_the_ratio_is_the_median_of_ratios_not_the_ratio_of_medians() -> None:
    figures = rr((100, 40), (10, 3), (50, 16))
    assert figures.value("cross.rr.rate", NONE) == 50
    assert figures.value("cross.rr.rate", MESH) == 16
    assert figures.ratio("cross.rr.rate", MESH) == pytest.approx(0.32)
    assert figures.verdict("cross.rr.rate") is Verdict.MISSED


def test_at_the_limit_is_met() -> None:
    assert rr((100, 33)).verdict("cross.rr.rate") is Verdict.MET


def test_a_loud_round_is_left_out_while_half_are_quiet() -> None:
    figures = rr((100, 40), (100, 1), loud=(2,))
    assert figures.ratio("cross.rr.rate", MESH) == pytest.approx(0.4)
    assert figures.verdict("cross.rr.rate") is Verdict.MET


def test_mostly_loud_is_shown_and_not_judged() -> None:
    figures = rr((100, 40), (100, 1), (100, 20), loud=(1, 2))
    assert figures.ratio("cross.rr.rate", MESH) == pytest.approx(0.2)
    assert figures.verdict("cross.rr.rate") is Verdict.NOISY
    assert figures.status() == 3


def test_a_failed_load_costs_its_round_only() -> None:
    figures = rr((100, None), (None, 30), (100, 50))
    assert figures.rounds("cross.rr.rate", MESH) == [None, 30, 50]
    assert figures.ratio("cross.rr.rate", MESH) == pytest.approx(0.5)


def test_no_figure_at_all() -> None:
    figures = rr((100, None))
    assert figures.verdict("cross.rr.rate") is Verdict.ABSENT
    assert figures.status() == 3
    assert figures.verdict("cross.crr.rate") is Verdict.UNASKED
    assert figures.verdict("cross.rr.rate", PEER) is Verdict.UNASKED


@pytest.mark.parametrize(("ours", "status"), [(40, 0), (20, 1)])
def test_status(ours: float, status: int) -> None:
    assert rr((100, ours)).status() == status


@pytest.mark.parametrize(("metric", "good", "bad"), [("cross.rr.cpu", 42.0, 42.1), ("idle.each", 6000.0, 6001.0)])
def test_a_target_on_the_figure_itself(metric: str, good: float, bad: float) -> None:
    prefix, _, figure = metric.rpartition(".")
    for value, verdict in ((good, Verdict.MET), (bad, Verdict.MISSED)):
        figures = Figures()
        figures.add(prefix, MESH, 1, {figure: value}, [figure], loud=False)
        assert figures.verdict(metric) is verdict


def test_targets_as_printed() -> None:
    assert (str(TARGETS["cross.lat.p50"]), str(TARGETS["cross.rr.rate"])) == ("≤ 2.4 x", "≥ 0.33 x")
    assert str(TARGETS["idle.memory"]) == "≤ 110"
