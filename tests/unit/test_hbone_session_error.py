"""What a broken rule leaves of the bytes before it."""

import pytest

from tests import frames as f
from tests.sessions import server
from ztunnel.hbone import events as ev
from ztunnel.hbone.errors import ErrorCode, SessionError


def test_events_before_the_broken_rule_are_not_lost():
    talk = server()
    wire = f.headers(1, f.REQUEST) + f.data(1, b"x") + f.rst(1, 8) + f.ping(bytes(7))
    with pytest.raises(SessionError) as caught:
        talk.session.receive(memoryview(wire), 0.0)
    assert caught.value.code is ErrorCode.FRAME_SIZE_ERROR
    assert [kind for kind, _, _ in caught.value.events] == [ev.REQUEST, ev.DATA, ev.RESET]
    assert not talk.session.streams
