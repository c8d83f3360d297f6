"""The proxy's side of one ZDS connection, sans-IO: each request and what is held now go in, what to do comes out.

The shell (:mod:`ztunnel.zds.client`) does it and answers, strictly one answer a request. A connection begins with a snapshot:
whatever the agent has not named when it says the snapshot is sent is to be stopped. What breaks the protocol raises
ZdsProtocolError: the shell answers with it and ends this connection; pods that are served go on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from ztunnel.identity.spiffe import is_segment
from ztunnel.state.model import WorkloadInfo
from ztunnel.zds.codec import Add, Del, Keep, Snapshot, decode_request
from ztunnel.zds.errors import ZdsProtocolError

__all__ = ["MAX_PODS", "Action", "NetnsInode", "Nothing", "Reject", "Retain", "Start", "Stop", "ZdsSession"]

MAX_PODS: Final = 10_000
"""Pods one snapshot may name; Kubernetes' own ceiling is some hundreds a node."""


class NetnsInode(NamedTuple):
    """What tells one network namespace from another: device and inode."""

    dev: int
    ino: int


@dataclass(frozen=True, slots=True)
class Start:
    """Serve ``uid`` in the netns that came with it. ``replaces``: it is served with other facts now; stop that first."""

    uid: str
    info: WorkloadInfo
    replaces: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop serving ``uid``, which may be unknown."""

    uid: str


@dataclass(frozen=True, slots=True)
class Retain:
    """The snapshot is complete: stop everything but ``uids``."""

    uids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Reject:
    """Refuse this one pod; the connection goes on."""

    uid: str
    error: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """It is as asked already."""


Action = Start | Stop | Retain | Reject | Nothing


class ZdsSession:
    """One connection. :attr:`synced` once its snapshot is complete."""

    def __init__(self) -> None:
        self.synced = False
        self._named: set[str] = set()

    def received(
        self,
        packet: bytes,
        netns: tuple[NetnsInode, ...],
        held: Mapping[str, tuple[int, int]],
        infos: Mapping[str, WorkloadInfo],
    ) -> Action:
        """What to do for one packet.

        ``netns``: its descriptors; ``held``: the netns of each pod served; ``infos``: what they were added as, where known. Raises
        ZdsProtocolError.
        """
        request = decode_request(packet)
        if len(netns) != (1 if isinstance(request, Add) else 0):
            raise ZdsProtocolError(f"{type(request).__name__} with {len(netns)} descriptors; only an Add carries one, its netns")
        match request:
            case Add(uid, info):
                self._name(uid)
                return _add(uid, info, netns[0], held, infos)
            case Keep(uid):
                if self.synced:
                    raise ZdsProtocolError("KeepWorkload after the snapshot was sent")
                self._name(uid)
                return Nothing()
            case Del(uid):
                self._named.discard(uid)
                return Stop(uid)
            case Snapshot():
                if self.synced:
                    raise ZdsProtocolError("SnapshotSent twice on one connection")
                self.synced = True
                named = frozenset(self._named)
                self._named.clear()
                return Retain(named)

    def _name(self, uid: str) -> None:
        if self.synced:
            return
        if len(self._named) >= MAX_PODS and uid not in self._named:
            raise ZdsProtocolError(f"snapshot of more than {MAX_PODS} pods")
        self._named.add(uid)


def _add(
    uid: str, info: WorkloadInfo, netns: NetnsInode, held: Mapping[str, tuple[int, int]], infos: Mapping[str, WorkloadInfo]
) -> Action:
    for what, value in (("namespace", info.namespace), ("service account", info.service_account)):
        if not is_segment(value):
            return Reject(uid, f"{what} {value[:80]!r} cannot be part of an identity; the pod is not served")
    known = held.get(uid)
    if known is not None and tuple(known) == netns and infos.get(uid, info) == info:
        return Nothing()
    return Start(uid, info, replaces=known is not None)
