"""``python -m ambient.demo.get URL [WORD...]``: print the lines of a page that hold every WORD. A curl and a grep in one.

Exit status 0 when there was such a line, 1 when not.
"""

import sys
import urllib.request
from collections.abc import Sequence
from typing import Final

__all__ = ["choose", "main"]

SECONDS: Final = 5.0
_MAX_BYTES: Final = 64 * 1024 * 1024


def choose(page: str, words: Sequence[str]) -> list[str]:
    """The lines with every word."""
    return [line for line in page.splitlines() if all(word in line for word in words)]


def main(words: list[str]) -> int:
    """Exit status."""
    if not words or words[0].startswith("-") or not words[0].startswith("http://"):
        print(__doc__, file=sys.stderr)  # noqa: T201
        return 2
    # A proxy that the environment names is not for the node's own ports.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(words[0], timeout=SECONDS) as answer:
            page = answer.read(_MAX_BYTES).decode("utf-8", "replace")
    except OSError as error:  # URLError and timeouts are OSErrors
        print(f"{words[0]}: {getattr(error, 'reason', error)}", file=sys.stderr)  # noqa: T201
        return 1
    lines = choose(page, words[1:])
    for line in lines:
        print(line)  # noqa: T201
    return 0 if lines else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
