"""A peer that ends its stream before it is answered: legal, if not what a node proxy does."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.system.apps import read_all
from tests.system.peers.bench import Bench, bench
from tests.system.peers.h2peer import H2Peer


@pytest.fixture(scope="module")
def b(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("early")) as it:
        yield it


@pytest.mark.parametrize("words", [b"", b"all I say"])
def test_an_end_before_the_answer_reaches_the_application(b: Bench, words: bytes) -> None:
    """The application is slow to accept, so that words and END_STREAM come while it is still being dialled."""
    with ExitStack() as stack:
        app = stack.enter_context(b.app.socket())
        app.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        app.settimeout(5)
        app.bind(("", 8123))
        app.listen(0)
        for _ in range(3):  # fill its queue
            filler = stack.enter_context(b.app.socket())
            filler.setblocking(False)
            filler.connect_ex((b.app.ipv4, 8123))
        client = stack.enter_context(H2Peer(b.dial_tls(), client=True))
        client.until(lambda: client.settings)
        sid = client.request(f"{b.app.ipv4}:8123")
        client.send(sid, words, end=True)
        assert not client.pump(0.1) or not client.heard[sid].status
        source = ""
        while source != b.peer.ipv4:
            sock, (source, _) = app.accept()
            stack.enter_context(sock)
        sock.settimeout(3)
        assert read_all(sock) == words
        client.until(lambda: client.heard[sid].status == 200)
        sock.sendall(b"answer")
        sock.shutdown(socket.SHUT_WR)
        client.until(lambda: client.heard[sid].ended)
        assert client.heard[sid].data == b"answer"
