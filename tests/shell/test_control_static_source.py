"""The static file as it changes: what is bad is refused, what was good stays in force."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from ztunnel.control import static_source as module
from ztunnel.control.static_source import StaticSource
from ztunnel.state.errors import StateError
from ztunnel.state.static import StaticState

GOOD = """
workloads:
- uid: cluster1//v1/Pod/default/{name}
  name: {name}
  namespace: default
  workloadIps: [10.0.0.1]
"""


class Taken:
    def __init__(self) -> None:
        self.states: list[StaticState] = []
        self.refuse = ""

    async def __call__(self, state: StaticState) -> None:
        await trio.lowlevel.checkpoint()
        if self.refuse:
            raise StateError(self.refuse)
        self.states.append(state)

    def names(self) -> list[list[str]]:
        return [[w.name for w in state.workloads] for state in self.states]


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def write(path: Path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def remove(path: Path) -> None:
    path.unlink()


async def until(condition: Callable[[], object]) -> None:
    """In real time: files are read in threads, which a virtual clock does not wait for."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 threads do not set events of ours
            await trio.sleep(0.002)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL", 0.005)


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.yaml"


async def test_no_file_and_no_text_is_an_empty_state(taken: Taken) -> None:
    await StaticSource("", "", taken).run()
    assert taken.states == [StaticState()]


async def test_text_of_the_environment_is_read_once(taken: Taken) -> None:
    await StaticSource("", GOOD.format(name="a"), taken).run()
    assert taken.names() == [["a"]]


async def test_bad_text_of_the_environment_names_its_variable(taken: Taken) -> None:
    source = StaticSource("", "workloads: 5", taken)
    await source.run()
    assert not taken.states
    assert "LOCAL_XDS" in source.problem


async def test_a_life_of_the_file(taken: Taken, path: Path, nursery: trio.Nursery) -> None:
    source = StaticSource(str(path), "", taken)
    nursery.start_soon(source.run)
    await until(lambda: "No such file" in source.problem)
    write(path, GOOD.format(name="a"))
    await until(lambda: not source.problem)
    assert taken.names() == [["a"]]
    write(path, GOOD.format(name="b")[:40])  # half-written
    await until(lambda: str(path) in source.problem)
    assert len(taken.states) == 1
    write(path, GOOD.format(name="bb"))
    await until(lambda: taken.names()[-1] == ["bb"])
    assert source.problem == ""
    replace(path, GOOD.format(name="cc"))
    await until(lambda: taken.names()[-1] == ["cc"])
    remove(path)
    await until(lambda: "No such file" in source.problem)
    assert len(taken.states) == 3
    write(path, b"\xff\xfe")
    await until(lambda: "utf-8" in source.problem)
    taken.refuse = "too large an item"
    replace(path, GOOD.format(name="d"))
    await until(lambda: source.problem == "too large an item")
    taken.refuse = ""
    write(path, "")
    await until(lambda: "the file is empty" in source.problem)
    replace(path, "{}")
    await until(lambda: taken.names()[-1] == [])
    assert source.problem == ""
    assert len(taken.states) == 4
    nursery.cancel_scope.cancel()


async def test_a_file_that_does_not_change_is_read_once(
    taken: Taken, path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0

    async def inline(function: Callable[..., object], *args: object) -> object:
        nonlocal reads
        reads += function is module._text
        await trio.lowlevel.checkpoint()
        return function(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", inline)
    write(path, GOOD.format(name="a"))
    with trio.move_on_after(60):
        await StaticSource(str(path), "", taken).run()
    assert (reads, taken.names()) == (1, [["a"]])


async def test_a_file_that_is_too_large_or_never_ends_is_refused(
    taken: Taken, path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1_000)
    write(path, "#" * 1_001)
    source, endless, folder = (StaticSource(p, "", taken) for p in (str(path), "/dev/zero", str(path.parent)))
    for one in (source, endless, folder):
        nursery.start_soon(one.run)
    for one, why in ((source, "larger than 1000 bytes"), (endless, "larger than 1000 bytes"), (folder, "directory")):
        await until(lambda one=one, why=why: why in one.problem)  # type: ignore[misc]
    assert not taken.states
    nursery.cancel_scope.cancel()
