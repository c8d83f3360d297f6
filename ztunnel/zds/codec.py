"""Messages of ZDS to and from packets. Pure, total, at most :data:`MAX_PACKET` bytes each way.

Used by the proxy's client and the agent's server. Unknown fields inside a known message are passed over, as protobuf evolves that
way; a request or response whose payload is of no known kind is refused, as acting on half of it could not be right.
"""

from dataclasses import dataclass
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from ztunnel.state.model import WorkloadInfo
from ztunnel.zds.errors import ZdsDecodeError, ZdsTooLongError
from ztunnel.zds.proto import zds_pb2

__all__ = [
    "MAX_PACKET",
    "VERSION",
    "Add",
    "Del",
    "Keep",
    "Request",
    "Snapshot",
    "decode_hello",
    "decode_request",
    "decode_response",
    "encode_hello",
    "encode_request",
    "encode_response",
]

MAX_PACKET: Final = 1024
"""Bytes: the buffer both ends of the protocol use (ztunnel, istio-cni)."""
VERSION: Final = 1
MAX_ERROR: Final = 960
"""Bytes of an answer's error text; longer ones are cut."""


@dataclass(frozen=True, slots=True)
class Add:
    """Serve a pod; its netns is the packet's one descriptor."""

    uid: str
    info: WorkloadInfo


@dataclass(frozen=True, slots=True)
class Keep:
    """Go on serving a pod whose netns the agent does not have."""

    uid: str


@dataclass(frozen=True, slots=True)
class Del:
    """Stop serving a pod."""

    uid: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything there is has been told."""


Request = Add | Keep | Del | Snapshot

_M = TypeVar("_M", bound=Message)


def encode_hello(version: int = VERSION) -> bytes:
    """The proxy's first packet."""
    return _bounded(zds_pb2.ZdsHello(version=version))  # type: ignore[arg-type]


def decode_hello(packet: bytes) -> int:
    """The proxy's version. Raises ZdsDecodeError."""
    return int(_parse(zds_pb2.ZdsHello(), packet, "hello").version)


def encode_request(request: Request) -> bytes:
    """A packet from the agent. Raises ZdsTooLongError."""
    message = zds_pb2.WorkloadRequest()
    match request:
        case Add(uid, info):
            message.add.uid = uid
            message.add.workload_info.name = info.name
            message.add.workload_info.namespace = info.namespace
            message.add.workload_info.service_account = info.service_account
        case Keep(uid):
            message.keep.uid = uid
        case Del(uid):
            getattr(message, "del").uid = uid
        case Snapshot():
            message.snapshot_sent.SetInParent()
    return _bounded(message)


def decode_request(packet: bytes) -> Request:
    """What the agent asks. Raises ZdsDecodeError."""
    message = _parse(zds_pb2.WorkloadRequest(), packet, "request")
    match message.WhichOneof("payload"):
        case "add":
            add = message.add
            if not add.HasField("workload_info"):
                raise ZdsDecodeError(
                    "AddWorkload without workload_info: the pod's identity would be unknown; is the agent too old?"
                )
            info = add.workload_info
            return Add(_uid(add.uid), WorkloadInfo(info.name, info.namespace, info.service_account))
        case "keep":
            return Keep(_uid(message.keep.uid))
        case "del":
            deleted: zds_pb2.DelWorkload = getattr(message, "del")
            return Del(_uid(deleted.uid))
        case "snapshot_sent":
            return Snapshot()
        case _:
            raise ZdsDecodeError("request of a kind this proxy does not know; agent and proxy are of versions that do not fit")


def encode_response(error: str = "") -> bytes:
    """The proxy's answer; "" is success. A long text is cut to fit."""
    text = error.encode("utf-8", "replace")[:MAX_ERROR].decode("utf-8", "ignore")
    message = zds_pb2.WorkloadResponse()
    message.ack.SetInParent()
    message.ack.error = text
    return _bounded(message)


def decode_response(packet: bytes) -> str:
    """The error the proxy answered with, "" for success. Raises ZdsDecodeError."""
    message = _parse(zds_pb2.WorkloadResponse(), packet, "response")
    if message.WhichOneof("payload") != "ack":
        raise ZdsDecodeError("response of a kind this agent does not know; agent and proxy are of versions that do not fit")
    return message.ack.error


def _uid(uid: str) -> str:
    if not uid:
        raise ZdsDecodeError("request without a workload uid")
    return uid


def _parse(message: _M, packet: bytes, what: str) -> _M:
    if len(packet) > MAX_PACKET:
        raise ZdsDecodeError(f"{what} is longer than {MAX_PACKET} bytes")
    try:
        message.ParseFromString(packet)
    except DecodeError as error:
        raise ZdsDecodeError(f"{what} is not well formed: {error}") from error
    return message


def _bounded(message: Message) -> bytes:
    packet = message.SerializeToString(deterministic=True)
    if len(packet) > MAX_PACKET:
        raise ZdsTooLongError(
            f"message is {len(packet)} bytes, more than the protocol's {MAX_PACKET}; the pod's names are too long"
        )
    return packet
