"""Who used the machine: only strangers count, and only what they used while it was looked."""

from perf.noise import LIMIT, Ledger, Noise
from perf.procfs import Process


def seen(*rows: tuple[int, str, int, int]) -> dict[int, Process]:
    """(pid, command, cpu ticks, start)."""
    return {pid: Process(pid, command, 1, cpu, started) for pid, command, cpu, started in rows}


def test_a_stranger_counts_from_the_first_look() -> None:
    ledger = Ledger(lambda process: process.command == "ztunnel")
    ledger.look(seen((10, "ztunnel", 0, 1), (11, "cc", 5000, 1)))
    ledger.look(seen((10, "ztunnel", 900, 1), (11, "cc", 5080, 1)))
    assert ledger.close(2.0, 0, 1.5) == Noise(share=0.4, worst="cc", steal=0.0, load_average=1.5)


def test_one_that_appears_counts_from_its_birth_also_when_it_is_gone_again() -> None:
    ledger = Ledger(lambda _: False)
    ledger.look({})
    ledger.look(seen((12, "cc", 30, 7)))
    ledger.look(seen((12, "cc", 20, 9)))  # the id was given out again
    assert ledger.close(1.0, 0, 0.0).share == 0.5


def test_kernel_threads_work_for_us() -> None:
    ledger = Ledger(lambda _: False)
    ledger.look({3: Process(3, "ksoftirqd/0", 2, 0, 1)})
    ledger.look({3: Process(3, "ksoftirqd/0", 2, 100, 1)})
    assert ledger.close(1.0, 0, 0.0) == Noise(0.0, "", 0.0, 0.0)


def test_each_process_is_asked_about_once() -> None:
    asked: list[int] = []

    def is_ours(process: Process) -> bool:
        asked.append(process.pid)
        return True

    ledger = Ledger(is_ours)
    for _ in range(3):
        ledger.look(seen((10, "a", 0, 1), (11, "b", 0, 1)))
    assert asked == [10, 11]


def test_loud_is_more_than_the_limit() -> None:
    assert not Noise(LIMIT, "cc", LIMIT, 9.0).loud
    assert Noise(LIMIT + 0.01, "cc", 0.0, 0.0).loud
    assert Noise(0.0, "", LIMIT + 0.01, 0.0).loud
