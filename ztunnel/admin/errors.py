"""What can go wrong before the HTTP servers answer."""

import errno

__all__ = ["AdminError", "BindError"]


class AdminError(Exception):
    """Root of this room's errors; the text is for the operator."""


class BindError(AdminError):
    """A port cannot be listened on; names the port, the cause and the remedy."""

    def __init__(self, what: str, host: str, port: int, setting: str, cause: OSError) -> None:
        self.reason = "bind_failed"
        remedy = f"set another port with {setting}"
        if cause.errno == errno.EADDRINUSE:
            remedy = f"another process has the port (`ss -ltnp 'sport = :{port}'` names it): stop it, or {remedy}"
        elif cause.errno in (errno.EACCES, errno.EPERM):
            remedy = f"ports below 1024 need CAP_NET_BIND_SERVICE: grant it, or {remedy}"
        at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        super().__init__(f"cannot listen on {at} for {what}: {cause.strerror or cause}; {remedy}")
