"""No bytes make ``from_wire`` raise anything but its own error, or come back as something they did not say."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from policy.errors import PolicyWireError
from policy.wire import from_wire, to_wire
from tests.fuzz.policy_strategies import authorizations

# What a hostile message is likely to be made of: tags of the schema, lengths, enum values, address lengths.
TAGS = [bytes([number << 3 | kind]) for number in range(1, 15) for kind in (0, 2)]
pieces = st.sampled_from([*TAGS, b"\x00", b"\x04", b"\x10", b"p"])


def read(data: bytes) -> None:
    with contextlib.suppress(PolicyWireError):
        policy = from_wire(data)
        assert from_wire(to_wire(policy)) == policy


@settings(max_examples=1000)
@given(st.binary(max_size=200))
def test_random_bytes(data):
    read(data)


@settings(max_examples=1000)
@given(st.lists(pieces, max_size=60).map(b"".join))
def test_bytes_that_look_like_a_policy(data):
    read(b"\x0a\x01p" + data)


@settings(max_examples=300)
@given(authorizations)
def test_written_and_read_again_it_is_the_same(policy):
    assert from_wire(to_wire(policy)) == policy


@settings(max_examples=500)
@given(authorizations, st.data())
def test_one_changed_byte(policy, data):
    wire = bytearray(to_wire(policy))
    wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(wire))
