"""Whether the proxy is ready, and what it waits for: ztunnel's named tasks.

Pure. Tasks become ready when their owners say so and may be lost again (the node agent's socket closes).
"""

from typing import Final

from ztunnel.admin.message import Request, Response, Routes, text

__all__ = ["PROXY", "STATE_MANAGER", "TASKS", "WORKLOAD_PROXY_MANAGER", "Readiness", "readiness_routes"]

STATE_MANAGER: Final = "state manager"
PROXY: Final = "proxy"
WORKLOAD_PROXY_MANAGER: Final = "workload proxy manager"
TASKS: Final = (STATE_MANAGER, PROXY, WORKLOAD_PROXY_MANAGER)
"""Tasks of a proxy that serves pods, by ztunnel's names."""


class Readiness:
    """A set of tasks. An unknown name is a programming error: KeyError."""

    def __init__(self, tasks: tuple[str, ...] = TASKS) -> None:
        self._done = dict.fromkeys(tasks, False)

    def done(self, task: str) -> None:
        """``task`` has what it needs."""
        self._set(task, True)

    def lost(self, task: str) -> None:
        """``task`` waits again."""
        self._set(task, False)

    def _set(self, task: str, done: bool) -> None:
        if task not in self._done:
            raise KeyError(task)
        self._done[task] = done

    @property
    def pending(self) -> tuple[str, ...]:
        """What is waited for; empty when ready."""
        return tuple(task for task, done in self._done.items() if not done)


def readiness_routes(readiness: Readiness) -> Routes:
    """``/healthz/ready``: 200 ``ready``, or 500 with what is missing."""

    async def ready(request: Request) -> Response:
        pending = readiness.pending
        return text(500, f"not ready, pending: {', '.join(pending)}\n") if pending else text(200, "ready\n")

    routes = Routes()
    routes.add("GET", "/healthz/ready", ready)
    return routes
