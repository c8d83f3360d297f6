"""What a connection costs: on the node where it costs more, by memory that neighbours do not move."""

from perf.idle import each, key


def test_each_is_of_the_dearer_node_and_not_of_pss() -> None:
    before = {"node-1": (50_000, 60_000), "node-2": (50_000, 60_000)}
    after = {"node-1": (90_000, 64_000), "node-2": (10_000, 65_000)}
    assert each(before, after, 1000) == 5.0


def test_key() -> None:
    assert (key(1000), key(10_000)) == ("each_1000", "each")
