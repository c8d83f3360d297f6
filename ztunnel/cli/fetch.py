"""Getting a dump: from the admin port of a proxy that runs, or from a file. Errors name cause and remedy."""

import http.client
import sys
from pathlib import Path
from typing import Final

import msgspec

from ztunnel.cli.errors import CommandError
from ztunnel.cli.shape import Json, clean

__all__ = ["MAX_DUMP", "ask", "load", "read_dump"]

MAX_DUMP: Final = 512 * 1024 * 1024
"""Bytes of a dump (10 000 workloads are about 7 MB)."""
_SECONDS: Final = 20.0
_MAX_SHOWN = 500


def load(file: str, port: int) -> Json:
    """The dump in ``file`` (``-``: standard input), or that of the proxy at ``localhost:port``. Raises CommandError."""
    if file:
        return read_dump(_read(file), "standard input" if file == "-" else file)
    return read_dump(ask("GET", "/config_dump", port), f"http://localhost:{port}/config_dump")


def _read(file: str) -> bytes:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(MAX_DUMP + 1)
        else:
            with Path(file).open("rb") as stream:
                data = stream.read(MAX_DUMP + 1)
    except OSError as error:
        raise CommandError(
            f"cannot read {clean(file)}: {error.strerror}; save a dump with `curl localhost:15000/config_dump`"
        ) from error
    return data


def read_dump(data: bytes, origin: str) -> Json:
    """``data`` as a dump. Raises CommandError."""
    remedy = "a dump is what `curl localhost:15000/config_dump` prints"
    if len(data) > MAX_DUMP:
        raise CommandError(f"{clean(origin)} is over {MAX_DUMP >> 20} MiB; {remedy}")
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CommandError(f"{clean(origin)} is not JSON: {clean(str(error))}; {remedy}") from error
    if not isinstance(value, dict):
        raise CommandError(f"{clean(origin)} is JSON but not an object; {remedy}")
    return value


def ask(method: str, target: str, port: int) -> bytes:
    """The body of the admin API's answer. Raises CommandError for anything but 200."""
    connection = http.client.HTTPConnection("localhost", port, timeout=_SECONDS)
    try:
        connection.request(method, target)
        response = connection.getresponse()
        body = response.read(MAX_DUMP + 1)
    except ConnectionRefusedError as error:
        raise CommandError(
            f"nothing listens on localhost:{port}: is ztunnel running on this node, and are you in its network namespace (the "
            "node's own, not a pod's)? Another port: --admin-port; a saved dump: -f FILE"
        ) from error
    except TimeoutError as error:
        raise CommandError(f"localhost:{port} did not answer within {_SECONDS:.0f} s; see the proxy's log") from error
    except (OSError, http.client.HTTPException) as error:
        told = clean(str(error)) or type(error).__name__
        raise CommandError(f"localhost:{port} does not answer as an admin port: {told}; is --admin-port right?") from error
    finally:
        connection.close()
    if response.status != 200:
        told = " ".join(clean(line) for line in body[:_MAX_SHOWN].decode("utf-8", "replace").splitlines() if line)
        raise CommandError(f"localhost:{port} answered {response.status} to {method} {clean(target)}: {told}")
    return body
