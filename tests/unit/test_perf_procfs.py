"""/proc as text: process lines, smaps, and memory that is counted once."""

import pytest

from perf.procfs import Mapped, Process, alone, descendants, parse_smaps, parse_stat, pss

SMAPS = """\
55d0c0000000-55d0c0010000 r-xp 00001000 fe:00 1234                       /usr/bin/python3 (deleted)
Size:                 64 kB
KernelPageSize:        4 kB
Rss:                  40 kB
Pss:                  10 kB
Shared_Clean:         32 kB
Shared_Dirty:          0 kB
Private_Clean:         8 kB
Private_Dirty:         0 kB
THPeligible:           0
VmFlags: rd ex mr mw me sd
7f0000000000-7f0000100000 rw-p 00000000 00:00 0
Size:               1024 kB
Rss:                 100 kB
Pss:                 100 kB
Private_Dirty:       100 kB
7f0000200000-7f0000300000 ---p 00000000 00:00 0
Rss:                   0 kB
Pss:                   0 kB
"""
KIB = 1024


def test_stat_with_a_command_that_looks_like_the_end() -> None:
    text = "42 (a) b (c)) S 7 42 42 0 -1 4194560 100 0 0 0 30 12 900 900 20 0 3 0 5555 1000 200 18446744073709551615"
    assert parse_stat(text) == Process(pid=42, command="a) b (c)", parent=7, cpu=42, started=5555)


def test_smaps_keeps_what_is_in_memory() -> None:
    program = Mapped(("fe:00", 1234, 0x1000), rss=40 * KIB, pss=10 * KIB, private=8 * KIB)
    assert parse_smaps(SMAPS) == [program, Mapped(None, rss=100 * KIB, pss=100 * KIB, private=100 * KIB)]


def test_two_processes_share_a_file_once() -> None:
    one, two = parse_smaps(SMAPS), parse_smaps(SMAPS.replace("Private_Dirty:       100 kB", "Private_Dirty:        60 kB"))
    assert pss([one, two]) == 220 * KIB
    # Twice the anonymous 100, twice the private 8, once the shared 32.
    assert alone([one, two]) == (200 + 16 + 32) * KIB


def test_different_offsets_of_a_file_are_different_pages() -> None:
    here, there = (Mapped(("fe:00", 1, offset), rss=8, pss=4, private=0) for offset in (0, 4096))
    assert alone([[here], [there]]) == 16
    assert alone([[here], [here]]) == 8


@pytest.mark.parametrize(("root", "found"), [(1, [1, 2, 4, 3]), (2, [2, 3]), (9, [])])
def test_descendants(root: int, found: list[int]) -> None:
    everyone = {pid: Process(pid, "x", parent, 0, 0) for pid, parent in ((1, 0), (2, 1), (3, 2), (4, 1), (5, 0))}
    assert descendants(root, everyone) == found
