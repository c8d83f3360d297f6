"""Every message of the link survives the way over it; hostile packets raise msgspec's errors and nothing else."""

import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.link import messages as m
from ztunnel.link.packets import packets

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
INT = st.integers(-(2**63), 2**64 - 1)


def struct(kind: type[msgspec.Struct]) -> st.SearchStrategy[typing.Any]:
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{name: value(hints[name]) for name in kind.__struct_fields__})


def value(hint: typing.Any) -> st.SearchStrategy[typing.Any]:
    """Any value of a field's type."""
    if hint is str or getattr(hint, "__supertype__", None) is str:
        return TEXT
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)
        if inner[-1] is Ellipsis:
            return st.lists(value(inner[0]), max_size=2).map(tuple)
        return st.tuples(*[value(i) for i in inner])
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return st.deferred(lambda: struct(hint))
    if typing.get_origin(hint) is dict:
        key, item = typing.get_args(hint)
        return st.dictionaries(value(key), value(item), max_size=2)
    if typing.get_args(hint):  # a union: X | None
        return st.one_of([value(i) for i in typing.get_args(hint)])
    simple: dict[object, st.SearchStrategy[typing.Any]] = {
        int: INT,
        bool: st.booleans(),
        float: st.floats(allow_nan=False),
        bytes: st.binary(max_size=30),
        type(None): st.none(),
    }
    return simple[hint] if hint in simple else st.sampled_from(list(hint))


DOWN, UP = typing.get_args(m.DownMessage), typing.get_args(m.UpMessage)


@pytest.mark.parametrize("kind", DOWN, ids=lambda kind: str(kind.__name__))
def test_every_message_down_survives(kind: type[msgspec.Struct]) -> None:
    @given(struct(kind))
    def check(message: m.DownMessage) -> None:
        assert m.decode_down(m.encode([message])) == (message,)

    check()


@pytest.mark.parametrize("kind", UP, ids=lambda kind: str(kind.__name__))
def test_every_message_up_survives(kind: type[msgspec.Struct]) -> None:
    @given(struct(kind))
    def check(message: m.UpMessage) -> None:
        assert m.decode_up(m.encode([message])) == (message,)
        (packet,) = packets([message], lambda _: None)
        assert m.decode_up(packet) == (message,)

    check()


def total(packet: bytes) -> None:
    for decode in (m.decode_down, m.decode_up):
        try:
            messages = decode(packet)
        except msgspec.MsgspecError:
            continue
        assert isinstance(messages, tuple)


@given(st.binary(max_size=300))
def test_any_bytes(packet: bytes) -> None:
    total(packet)


@given(st.one_of([struct(kind) for kind in (*DOWN, *UP)]), st.data())
def test_damaged_messages(message: m.UpMessage, data: st.DataObject) -> None:
    packet = bytearray(m.encode([message]))
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    total(bytes(packet[: data.draw(st.integers(0, len(packet)))]))
    total(bytes(packet))


@pytest.mark.parametrize("packet", [b"\x91\x92\xa8DelProxy\xa1\xff", b"\x91" * 100_000, b"\xdf\xff\xff\xff\xff"])
def test_known_nasty_bytes(packet: bytes) -> None:
    """Text that is not UTF-8, deep nesting, a map of four thousand million entries."""
    for decode in (m.decode_down, m.decode_up):
        with pytest.raises(msgspec.MsgspecError):
            decode(packet)


def test_the_two_directions_share_no_message() -> None:
    assert not {kind.__name__ for kind in DOWN} & {kind.__name__ for kind in UP}
    for kind in DOWN:
        with pytest.raises(msgspec.MsgspecError):
            m.decode_up(m.encode([[kind.__name__]]))
