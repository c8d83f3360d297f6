"""The messages between the data plane and the control half.

One Unix SOCK_SEQPACKET socket; each packet is one msgpack array of tagged structs (:func:`encode`), at most
:data:`MAX_PACKET` bytes; a packet that carries a descriptor holds exactly one :class:`AddProxy`. "Down" is from the control
half to the data plane. Versioned as a whole: :data:`VERSION` is in both hellos and a mismatch ends the link.
"""

from typing import Final

import msgspec

from policy.model import Authorization
from ztunnel.state.model import Service, Workload, WorkloadInfo

__all__ = [
    "MAX_BATCH",
    "MAX_PACKET",
    "VERSION",
    "AddProxy",
    "Certificate",
    "CertificateUnavailable",
    "Closed",
    "ConnectionView",
    "Connections",
    "Counters",
    "DataHello",
    "DelProxy",
    "DownMessage",
    "Drain",
    "Drained",
    "Dump",
    "Gauges",
    "ControlHello",
    "HeldProxy",
    "Log",
    "NeedCertificate",
    "Party",
    "Policies",
    "ProxyFailed",
    "ProxyStarted",
    "ProxyStopped",
    "Record",
    "Refusals",
    "SeriesDef",
    "Services",
    "StateBegin",
    "StateEnd",
    "UpMessage",
    "Workloads",
    "decode_down",
    "decode_up",
    "encode",
]

VERSION: Final = 1
MAX_PACKET: Final = 160 * 1024
"""Bytes of one packet; under the kernel's default socket buffer (net.core.wmem_default, 208 KiB)."""
MAX_BATCH: Final = 200
"""Workloads, services or policies in one message: what the data plane applies between two batches of events."""


class _Down(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of messages from the control half to the data plane."""


class _Up(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of messages from the data plane to the control half."""


# --- down ---------------------------------------------------------------------------------------------------------


class ControlHello(_Down, frozen=True):
    """First message of a control half."""

    version: int
    pid: int


class StateBegin(_Down, frozen=True):
    """State follows. ``full``: whatever is not mentioned before :class:`StateEnd` is removed then."""

    generation: int
    full: bool


class Workloads(_Down, frozen=True):
    """Workloads to insert or replace, and uids to remove."""

    upsert: tuple[Workload, ...] = ()
    remove: tuple[str, ...] = ()


class Services(_Down, frozen=True):
    """Services to insert or replace, and keys to remove."""

    upsert: tuple[Service, ...] = ()
    remove: tuple[str, ...] = ()


class Policies(_Down, frozen=True):
    """Policies to insert or replace, and keys to remove."""

    upsert: tuple[Authorization, ...] = ()
    remove: tuple[str, ...] = ()


class StateEnd(_Down, frozen=True):
    """The state of ``generation`` is complete and in force from here on."""

    generation: int


class AddProxy(_Down, frozen=True):
    """Serve a pod; the packet carries its netns descriptor. Answered by ProxyStarted or ProxyFailed."""

    uid: str
    info: WorkloadInfo


class DelProxy(_Down, frozen=True):
    """Stop serving a pod. Answered by ProxyStopped."""

    uid: str


class Certificate(_Down, frozen=True):
    """The certificate of an identity. PEM; ``roots`` may hold several. ``not_after``: Unix seconds."""

    identity: str
    chain: bytes
    key: bytes
    roots: bytes
    not_after: float


class CertificateUnavailable(_Down, frozen=True):
    """No certificate can be had for ``identity`` now; waiting connections are refused with ``error``."""

    identity: str
    error: str


class Drain(_Down, frozen=True):
    """Stop accepting, send GOAWAY, end at the deadline (seconds from now), then exit."""

    deadline: float


class Dump(_Down, frozen=True):
    """Ask for all open connections. Answered by Connections messages, the last with ``last``."""

    request: int


# --- up -----------------------------------------------------------------------------------------------------------


class HeldProxy(msgspec.Struct, frozen=True, array_like=True):
    """A pod the data plane serves: its ``netns`` is (device, inode)."""

    uid: str
    info: WorkloadInfo
    netns: tuple[int, int]


class DataHello(_Up, frozen=True):
    """First message of the data plane to a fresh control half: what it holds.

    What does not fit one packet comes in several, each with a part of ``proxies`` and ``identities``; all but the last say so.
    """

    version: int
    pid: int
    generation: int
    proxies: tuple[HeldProxy, ...]
    identities: tuple[str, ...]
    last: bool = True


class ProxyStarted(_Up, frozen=True):
    """Listeners of the pod are open."""

    uid: str
    netns: tuple[int, int]


class ProxyFailed(_Up, frozen=True):
    """The pod cannot be served: an operator's sentence."""

    uid: str
    error: str


class ProxyStopped(_Up, frozen=True):
    """The pod is no longer served."""

    uid: str


class NeedCertificate(_Up, frozen=True):
    """A connection waits for the certificate of ``identity``."""

    identity: str


class Party(msgspec.Struct, frozen=True, array_like=True):
    """One end of connections as telemetry names it; "" is unknown.

    ``principal`` is the SPIFFE id when it was proved (mTLS, or the netns of a workload of this node).
    """

    workload: str = ""
    """Deployment or the like."""
    pod: str = ""
    namespace: str = ""
    canonical_service: str = ""
    canonical_revision: str = ""
    principal: str = ""
    app: str = ""
    version: str = ""
    cluster: str = ""
    region: str = ""
    zone: str = ""


class SeriesDef(_Up, frozen=True):
    """Everything that connections of a kind have in common; ``id`` > 0 is used by records and counters from here on.

    ``reporter``: source | destination. ``security``: mutual_tls | unknown. ``service``: ``namespace/hostname`` or "".
    ``path``: tunnel | same_node | passthrough | plaintext.
    """

    id: int
    reporter: str
    source: Party
    destination: Party
    service: str
    security: str
    path: str


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One ended connection, or one refused before it had a series (``series`` 0).

    Addresses are ``ip:port`` (v6 in brackets); ``hbone`` is the CONNECT authority or "". ``sent``/``received``: bytes from the
    reporter's own point of view, as ztunnel's access log has them. ``started``: Unix seconds; ``duration``: seconds.
    ``reason``: :class:`ztunnel.reasons.CloseReason`; ``detail``: names and addresses, no sentence. ``policy``: the key of the
    policy that decided. ``trace``: 32 hex digits shared by both nodes' records of a tunnelled connection, or "".
    """

    series: int
    direction: str
    source: str
    destination: str
    hbone: str
    sent: int
    received: int
    started: float
    duration: float
    reason: str
    detail: str = ""
    policy: str = ""
    trace: str = ""


class Closed(_Up, frozen=True):
    """Ended connections; ``dropped`` counts records lost since the last message because the control half was away."""

    records: tuple[Record, ...]
    dropped: int = 0


class Counters(_Up, frozen=True):
    """What changed since the last message. ``live``: (series, opened, bytes of the request direction, bytes of the response
    direction). ``closed``: (series, reason, count)."""

    live: tuple[tuple[int, int, int, int], ...]
    closed: tuple[tuple[int, str, int], ...]


class Refusals(_Up, frozen=True):
    """Connections refused before they had a series, since the last message: (direction, reason, count)."""

    counts: tuple[tuple[str, str, int], ...]


class Gauges(_Up, frozen=True):
    """Sizes of the data plane now: name -> value. Names are in :mod:`ztunnel.dataplane.gauges`."""

    values: dict[str, float]


class ConnectionView(msgspec.Struct, frozen=True, array_like=True):
    """One open connection, as ``config_dump`` shows it. ``age``: seconds. ``path`` as in :class:`SeriesDef`."""

    uid: str
    direction: str
    source: str
    original: str
    actual: str
    protocol: str
    path: str
    why: str
    age: float
    sent: int
    received: int
    identity: str = ""
    policy: str = ""


class Connections(_Up, frozen=True):
    """Answer to :class:`Dump`, in slices."""

    request: int
    connections: tuple[ConnectionView, ...]
    last: bool


class Log(_Up, frozen=True):
    """A line for the proxy's log. ``level``: debug | info | warn | error."""

    level: str
    target: str
    message: str
    fields: dict[str, str]


class Drained(_Up, frozen=True):
    """Everything has ended; the process exits."""


DownMessage = (
    ControlHello
    | StateBegin
    | Workloads
    | Services
    | Policies
    | StateEnd
    | AddProxy
    | DelProxy
    | Certificate
    | CertificateUnavailable
    | Drain
    | Dump
)
UpMessage = (
    DataHello
    | ProxyStarted
    | ProxyFailed
    | ProxyStopped
    | NeedCertificate
    | SeriesDef
    | Closed
    | Counters
    | Refusals
    | Gauges
    | Connections
    | Log
    | Drained
)

encode = msgspec.msgpack.Encoder().encode
"""A sequence of messages as one packet."""
_down = msgspec.msgpack.Decoder(tuple[DownMessage, ...])
_up = msgspec.msgpack.Decoder(tuple[UpMessage, ...])


def decode_down(packet: bytes) -> tuple[DownMessage, ...]:
    """Messages of a packet from the control half. Raises msgspec.MsgspecError."""
    try:
        return _down.decode(packet)
    except (UnicodeDecodeError, RecursionError) as e:  # msgspec's own errors do not cover text that is not UTF-8
        raise msgspec.DecodeError(str(e)) from None


def decode_up(packet: bytes) -> tuple[UpMessage, ...]:
    """Messages of a packet from the data plane. Raises msgspec.MsgspecError."""
    try:
        return _up.decode(packet)
    except (UnicodeDecodeError, RecursionError) as e:
        raise msgspec.DecodeError(str(e)) from None
