"""The table as text, and the JSON result."""

from pathlib import Path

import msgspec
import pytest

from perf.judge import MESH, NONE, PEER, Figures
from perf.machine import Machine, cpu_model
from perf.measures import METRICS
from perf.options import parse
from perf.report import document, number, plain, rows, save
from perf.targets import TARGETS


def figures() -> Figures:
    found = Figures()
    for side, rate in ((NONE, 75_000.4), (MESH, 26_000.0), (PEER, 25_000.0)):
        cpu = {} if side == NONE else {"cpu": 40.04}
        found.add("cross.rr", side, 1, {"rate": rate, **cpu}, ["rate"], loud=False)
    found.add("idle", MESH, 1, {"memory": 61.888}, ["memory"], loud=False)
    return found


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.33333, "0.333"), (61.888, "61.9"), (999.4, "999"), (12345.6, "12 346"), (0.0, "0")]
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


def test_table_without_a_peer() -> None:
    assert plain(rows(figures(), peer=False), peer=False).splitlines() == [
        "                                       no mesh    ours  ratio    target  met?",
        "-- node to node",
        "rr 32 connections (/s)                  75 000  26 000  0.347  ≥ 0.33 x   yes",
        "rr 32 connections proxy CPU (µs/trip)        -      40             ≤ 42   yes",
        "-- memory",
        "memory (PSS), idle (MiB/node)                -    61.9            ≤ 110   yes",
    ]


def test_table_with_a_peer_has_its_ratio() -> None:
    lines = plain(rows(figures(), peer=True), peer=True).splitlines()
    assert lines[0].split() == ["no", "mesh", "ours", "peer", "ratio", "peer", "ratio", "target", "met?"]
    assert lines[2].endswith("75 000  26 000  25 000  0.347       0.333  ≥ 0.33 x   yes")


def test_every_target_is_on_a_metric_of_the_table() -> None:
    assert set(TARGETS) <= {metric.key for metric in METRICS}


def test_metric_keys_are_unique() -> None:
    keys = [metric.key for metric in METRICS]
    assert len(keys) == len(set(keys))


def test_document_keeps_every_round(tmp_path: Path) -> None:
    machine = Machine("6.1", "a CPU", 2, 4096, "CPython 3.11.7", "OpenSSL 3.5", "abc+")
    content = document(parse(["--rounds", "2"]), machine, figures(), [], ["a note"], "2026-01-02T03:04:05+0000")
    save(content, tmp_path / "deep" / "result.json")
    kept = msgspec.json.decode((tmp_path / "deep" / "result.json").read_bytes())
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["result.json"]
    assert kept["machine"]["commit"] == "abc+"
    assert kept["results"]["cross.rr.rate"]["sides"]["ours"]["rounds"] == [26_000.0]
    assert kept["results"]["cross.rr.rate"]["met"] == "yes"
    assert kept["results"]["cross.rr.rate"]["sides"]["no mesh"]["ratio"] is None
    assert kept["metrics"]["idle.memory"]["unit"] == "MiB/node"


def test_cpu_model() -> None:
    assert cpu_model("processor\t: 0\nmodel name\t: A CPU @ 3: GHz\nmodel name\t: other\n") == "A CPU @ 3: GHz"
    assert cpu_model("Hardware: none\n") == "unknown"
