"""Who may talk to the admin port: it has no passwords, only loopback; so a web page must not get through a browser.

Pure. A page can make a browser on this machine ask ``127.0.0.1:15000`` under a name of its own (DNS rebinding) or post to it from
another origin; both carry a ``Host`` or ``Origin`` that is not loopback.
"""

from typing import Final

from ztunnel.admin.message import Request, Response, text

__all__ = ["loopback_only"]

_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def loopback_only(request: Request) -> Response | None:
    """A 403 when ``Host`` or ``Origin`` names anything else than this machine's loopback."""
    host = request.headers.get("host")
    if host is not None and _name(host) not in _NAMES:
        return text(403, "the Host header must be localhost, 127.0.0.1 or [::1]: the admin port serves this machine only\n")
    origin = request.headers.get("origin")
    if origin is not None and _name(origin.partition("://")[2]) not in _NAMES:
        return text(403, "the Origin header is of another site: the admin port serves this machine only\n")
    return None


def _name(authority: str) -> str:
    authority = authority.strip().lower()
    if authority.startswith("["):
        name, closed, rest = authority[1:].partition("]")
        return name if closed and (not rest or rest.startswith(":")) else ""
    return authority.partition(":")[0]
