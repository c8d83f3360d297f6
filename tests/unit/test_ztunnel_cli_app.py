"""The command itself: names and aliases, offline dumps, a server that answers, exit statuses."""

import http.server
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from click.testing import CliRunner

from ztunnel.admin.dump import DumpParts, PodView, assemble, encode_slices
from ztunnel.cli.app import ALIASES, COMMANDS, app
from ztunnel.link.messages import ConnectionView
from ztunnel.state.model import WorkloadInfo

VIEW = ConnectionView("u", "outbound", "10.0.0.1:9", "10.0.0.2:80", "10.0.0.2:15008", "HBONE", "tunnel", "by address", 1.0, 2, 3)
PARTS = DumpParts(
    workloads=[{"uid": "u", "name": "sleep-1", "namespace": "default", "workloadIps": ["10.0.0.1"], "protocol": "HBONE"}],
    pods=[PodView("u", WorkloadInfo("sleep-1", "default", "sleep"))],
    connections=[VIEW],
)
DUMP = b"".join(encode_slices(assemble(PARTS)))
WORKLOADS = "NAMESPACE  POD NAME  ADDRESS   NODE  WAYPOINT  PROTOCOL\ndefault    sleep-1   10.0.0.1        None      HBONE\n"


def run(*args: str, stdin: bytes | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(app, args, input=stdin)
    return result.exit_code, result.output


@pytest.mark.parametrize("name", ["workloads", "workload", "w"])
def test_offline_from_standard_input(name: str) -> None:
    assert run(name, "-f", "-", stdin=DUMP) == (0, WORKLOADS)


def test_our_own_dump_shows_path_and_why(tmp_path: Path) -> None:
    file = tmp_path / "dump.json"
    file.write_bytes(DUMP)
    status, shown = run("cons", "-f", str(file), "--direction", "outbound")
    assert status == 0
    assert shown == (
        "WORKLOAD         DIRECTION  LOCAL              REMOTE          REMOTE TARGET  PROTOCOL  PATH    WHY\n"
        "sleep-1.default  Outbound   sleep-1.default:9  10.0.0.2:15008  10.0.0.2:80    HBONE     tunnel  by address\n"
    )


def test_json_and_yaml_are_the_items_of_the_dump() -> None:
    status, shown = run("w", "-o", "json", "-f", "-", "sleep", stdin=DUMP)
    assert (status, json.loads(shown)) == (0, list(PARTS.workloads))
    status, shown = run("w", "-o", "yaml", "-f", "-", stdin=DUMP)
    assert (status, yaml.safe_load(shown)) == (0, list(PARTS.workloads))
    status, shown = run("all", "-o", "json", "-f", "-", stdin=DUMP)
    assert (status, json.loads(shown)) == (0, json.loads(DUMP))


def test_all_has_every_table_and_titles_if_asked() -> None:
    status, shown = run("all", "--with-headers", "-f", "-", stdin=DUMP)
    assert status == 0
    assert [line for line in shown.splitlines() if line.startswith("# ")] == [
        "# Workloads",
        "# Services",
        "# Policies",
        "# Certificates",
        "# Connections",
    ]
    assert run("all", "-f", "-", stdin=DUMP)[1] == "".join(line for line in shown.splitlines(True) if not line.startswith("# "))


def test_errors_have_cause_and_remedy_and_status_1_or_2(tmp_path: Path) -> None:
    status, shown = run("w", "-f", str(tmp_path / "none"))
    assert (status, "No such file or directory; save a dump with" in shown) == (1, True)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        status, shown = run("w", "--admin-port", str(port))
    assert status == 1
    assert shown.startswith(f"Error: nothing listens on localhost:{port}: is ztunnel running on this node,")
    assert run("w", "--nonsense")[0] == 2
    assert run("nonsense")[0] == 2
    deep = b'{"workloads":[{"a":' + b"[" * 900 + b"]" * 900 + b"}]}"
    status, shown = run("w", "-o", "yaml", "-f", "-", stdin=deep)
    assert (status, "nested too deeply" in shown or "not JSON" in shown) == (1, True)


@pytest.mark.parametrize("name", [*COMMANDS, *ALIASES])
def test_every_command_and_alias_has_help(name: str) -> None:
    status, shown = run(name, "--help")
    assert status == 0
    assert "Usage: " in shown


class Admin(http.server.BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.answer(200, DUMP) if self.path == "/config_dump" else self.answer(500, b"broken\x1b\n")

    def do_POST(self) -> None:
        self.asked.append(self.path)
        self.answer(400 if "loud" in self.path else 200, b"current log level is info\n")

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Admin) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield str(server.server_address[1])
        server.shutdown()
        thread.join()


def test_a_running_proxy_is_asked(port: str) -> None:
    assert run("w", "--proxy-admin-port", port) == (0, WORKLOADS)


def test_log(port: str) -> None:
    Admin.asked.clear()
    assert run("log", "--admin-port", port) == (0, "current log level is info\n")
    assert run("o", "-r", "--level", "xds:warning,ztunnel::zds=critical,debug", "--admin-port", port)[0] == 0
    assert Admin.asked == ["/logging", "/logging?reset=&level=xds%3Dwarn%2Cztunnel%3A%3Azds%3Derror%2Cdebug"]
    status, shown = run("log", "--level", "loud", "--admin-port", port)
    assert (status, f"localhost:{port} answered 400 to POST /logging" in shown) == (1, True)


def test_env_tells_that_a_variable_is_set_and_never_to_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_XDS_PATH", "secret-value")
    status, shown = run("env")
    assert status == 0
    assert "LOCAL_XDS_PATH (set now)\n    " in shown
    assert "secret-value" not in shown


def test_version_and_completion() -> None:
    assert run("version")[1].startswith("ztunnel ")
    assert "_ZTUNNEL_COMPLETE=zsh_complete" in run("completion", "zsh")[1]
    assert run("completion", "tcsh")[0] == 2


def test_inspection_imports_nothing_of_the_proxy() -> None:
    script = (
        "import sys; from click.testing import CliRunner; from ztunnel.cli.app import app;"
        "CliRunner().invoke(app, ['w', '-f', '-'], input=b'{}');"
        "heavy = {'trio', 'OpenSSL', 'cryptography', 'h11', 'structlog', 'yaml'};"
        "print(sorted({name.split('.')[0] for name in sys.modules} & heavy))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
