"""Enrolment of one node's pods: rules first, then the proxy, so that the failure direction is no traffic, never clear traffic.

Driven by the lab agent. A pod whose rules are in place but which no proxy serves yet is *pending*: it stays closed and is tried
again until it is served or withdrawn. Calls for one pod must not overlap, except :meth:`Enroller.run`'s own retries.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final, Protocol

import trio

from ambient.node.errors import EnrolError
from ambient.node.zds_server import ZdsServer
from capture.command import Tools
from capture.detect import BackendChoice
from capture.errors import CaptureError, CaptureFailedError
from capture.rules import CaptureConfig
from ztunnel.state.model import WorkloadInfo

__all__ = ["Capture", "Enroller", "Event", "PodCapture", "PodState"]

FIRST_RETRY: Final = 0.25
MAX_RETRY: Final = 5.0
"""Seconds between attempts to have pending pods served, doubled each time (istio-cni's queue: at most 5 s)."""


class PodState(StrEnum):
    """How far a pod is."""

    ENROLLED = "enrolled"
    PENDING = "pending"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"


Event = Callable[[str, PodState, str], None]
"""Told of each change: uid, state, and why ("" when all is well)."""


class Capture(Protocol):
    """What puts and takes the rules; blocking, called in threads."""

    def apply(self, netns: str, config: CaptureConfig) -> None:
        """Raises CaptureError."""
        ...

    def remove(self, netns: str, config: CaptureConfig) -> None:
        """Raises CaptureError."""
        ...


@dataclass(frozen=True, slots=True)
class PodCapture:
    """The real one: :mod:`capture.manager`, which is imported with its heavy libraries only when first used.

    ``lock_dir``: another folder for the xtables lock files than the machine's own, "" for that.
    """

    backend: BackendChoice = BackendChoice.AUTO
    lock_dir: str = ""

    def apply(self, netns: str, config: CaptureConfig) -> None:
        from capture import manager

        manager.apply(netns, config, backend=self.backend, tools=self._tools())

    def remove(self, netns: str, config: CaptureConfig) -> None:
        from capture import manager

        manager.remove(netns, config=config, tools=self._tools())

    def _tools(self) -> Tools | None:
        return Tools(lock_dir=self.lock_dir) if self.lock_dir else None


@dataclass(slots=True)
class _Pod:
    info: WorkloadInfo
    netns: str
    config: CaptureConfig
    state: PodState
    error: str


class Enroller:
    """See the module. ``on_event`` is called in the trio thread."""

    def __init__(self, server: ZdsServer, capture: Capture, on_event: Event = lambda uid, state, why: None) -> None:
        self._server = server
        self._capture = capture
        self._on_event = on_event
        self._pods: dict[str, _Pod] = {}
        self._told: dict[str, tuple[PodState, str]] = {}
        self._turn = trio.Lock()
        self._wake = trio.Event()

    @property
    def pods(self) -> dict[str, tuple[PodState, str]]:
        """State and cause of each pod that is enrolled or pending."""
        return {uid: (pod.state, pod.error) for uid, pod in self._pods.items()}

    async def enrol(self, uid: str, info: WorkloadInfo, netns: str, config: CaptureConfig | None = None) -> None:
        """Capture the pod at the netns path ``netns`` and have it served. Again for one that is enrolled: checks and mends.

        Raises EnrolError. Not ``retryable``: the rules could not be put and the proxy was not told; the pod is as it was, or closed
        by a change that was begun (the sentence says, and :meth:`withdraw` opens it). ``retryable``: the pod is closed and pending;
        :meth:`run` goes on trying.
        """
        config = config or CaptureConfig()
        async with self._turn:
            try:
                await trio.to_thread.run_sync(partial(self._capture.apply, netns, config))
            except CaptureError as error:
                closed = isinstance(error, CaptureFailedError) and error.closed
                # CaptureFailedError says itself what the pod is left as.
                why = str(error) if isinstance(error, CaptureFailedError) else f"{error}; the pod is as it was"
                if closed and uid not in self._pods:
                    self._pods[uid] = _Pod(info, netns, config, PodState.FAILED, why)
                self._tell(uid, PodState.FAILED, why)
                raise EnrolError(why, retryable=False) from error
            self._pods[uid] = pod = _Pod(info, netns, config, PodState.PENDING, "")
            try:
                await self._serve(uid, pod)
            except EnrolError:
                self._wake.set()
                raise

    async def withdraw(self, uid: str) -> None:
        """Take a pod out of the mesh: every proxy is told first and ends its connections, then the rules go.

        In this order nothing hangs: once the rules are gone, so is the address translation that the proxy's resets need. Between
        the two, new connections are refused, never let past. A netns that has gone needs no rules removed. Raises EnrolError when
        rules could not be removed: the pod is served again then. An unknown pod is fine.
        """
        async with self._turn:
            pod = self._pods.get(uid)
            if pod is None:
                self._told.pop(uid, None)
                return
            await self._server.remove(uid)
            if os.path.exists(pod.netns):  # noqa: ASYNC240 - a stat of /run or /proc
                try:
                    await trio.to_thread.run_sync(partial(self._capture.remove, pod.netns, pod.config))
                except CaptureError as error:
                    self._tell(uid, PodState.FAILED, str(error))
                    if pod.state is not PodState.FAILED:  # a pod that was never served stays as it is
                        pod.state = PodState.PENDING
                        self._wake.set()
                    raise EnrolError(f"{error}; the pod is served again", retryable=True) from error
            del self._pods[uid]
            self._tell(uid, PodState.WITHDRAWN, "")
            del self._told[uid]

    async def run(self) -> None:
        """Retry pending pods until cancelled."""
        pause = FIRST_RETRY
        while True:
            pending = [uid for uid, pod in self._pods.items() if pod.state is PodState.PENDING]
            if not pending:
                pause = FIRST_RETRY
                self._wake = trio.Event()
                await self._wake.wait()
            await trio.sleep(pause)
            pause = min(MAX_RETRY, pause * 2)
            for uid in pending:
                async with self._turn:
                    pod = self._pods.get(uid)
                    if pod is None or pod.state is not PodState.PENDING:
                        continue
                    try:
                        await self._serve(uid, pod)
                    except EnrolError:
                        continue  # said by the event; the next round tries again

    async def _serve(self, uid: str, pod: _Pod) -> None:
        """Hand the pod to the proxy and note how that went."""
        try:
            netns = os.open(pod.netns, os.O_RDONLY | os.O_CLOEXEC)
            try:
                await self._server.add(uid, pod.info, netns)
            finally:
                os.close(netns)
        except OSError as error:
            pod.state, pod.error = PodState.PENDING, f"cannot open {pod.netns}: {error.strerror}; has the pod ended?"
        except EnrolError as error:
            pod.state, pod.error = PodState.PENDING, str(error)
        else:
            pod.state, pod.error = PodState.ENROLLED, ""
        self._tell(uid, pod.state, pod.error)
        if pod.error:
            raise EnrolError(pod.error)

    def _tell(self, uid: str, state: PodState, why: str) -> None:
        """An event, unless it would only repeat the last one of this pod."""
        if self._told.get(uid) != (state, why):
            self._told[uid] = (state, why)
            self._on_event(uid, state, why)
