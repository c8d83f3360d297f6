"""ambient.demo.echo, say and get: the small programs that the demo's commands run, over loopback."""

import socket
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ambient.demo import echo, get, say


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=echo.serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        assert not thread.is_alive()


def test_the_server_tells_the_address_and_sends_the_word_back(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert say.main(["127.0.0.1", str(port), "word"]) == 0
    assert capsys.readouterr().out == "server: you are 127.0.0.1\nserver: word\n"


def test_a_refused_connection_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert say.main(["127.0.0.1", str(unused.getsockname()[1]), "word"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("failed after ")
    assert said.endswith(" ms: Connection refused\n")


@pytest.mark.parametrize(
    ("linger", "why"), [(struct.pack("ii", 1, 0), "Connection reset by peer"), (None, "closed the connection after 3 bytes")]
)
def test_a_connection_that_ends_early_is_told(linger: bytes | None, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            if linger is None:
                connection.sendall(b"you")
            else:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        assert say.main(["127.0.0.1", str(listener.getsockname()[1]), "word"]) == 1
        thread.join(5)
    assert why in capsys.readouterr().out


def test_another_answer_is_no_success() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"you are x\n")
        done: list[bool] = []
        thread = threading.Thread(target=lambda: done.append(say.talk(ours, "word")))
        thread.start()
        assert theirs.recv(100) == b"word\n"
        theirs.sendall(b"something else\n")
        thread.join(5)
    assert done == [False]


def test_get_prints_the_lines_with_every_word(capsys: pytest.CaptureFixture[str]) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"one two\ntwo three\nthree\n")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/"
        assert get.main([url, "two", "three"]) == 0
        assert capsys.readouterr().out == "two three\n"
        assert get.main([url, "four"]) == 1
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
    assert get.main([url]) == 1
    assert "refused" in capsys.readouterr().err
    assert get.main(["--help"]) == 2
