"""What can go wrong between the node agent and the proxy.

Raised by this room; the proxy's client and the agent's server both catch :class:`ZdsError`. Each has the operator's sentence
and a stable ``reason``.
"""

from typing import ClassVar

__all__ = ["ProxyStartError", "ZdsDecodeError", "ZdsError", "ZdsProtocolError", "ZdsTooLongError", "ZdsTransportError"]


class ZdsError(Exception):
    """Root of this room's errors."""

    reason: ClassVar[str] = "zds_error"


class ZdsProtocolError(ZdsError):
    """The other side breaks the protocol, perhaps by being of another version: it is told, and this connection ends."""

    reason: ClassVar[str] = "zds_protocol"


class ZdsDecodeError(ZdsProtocolError):
    """A packet is not one of the protocol's messages."""

    reason: ClassVar[str] = "zds_malformed"


class ZdsTooLongError(ZdsError):
    """A message of ours does not fit a packet: a name is too long."""

    reason: ClassVar[str] = "zds_too_long"


class ZdsTransportError(ZdsError):
    """The socket failed, closed, or cut a packet or its descriptors short."""

    reason: ClassVar[str] = "zds_transport"


class ProxyStartError(ZdsError):
    """A pod cannot be served now; raised by the client's handler, told to the agent and tried again."""

    reason: ClassVar[str] = "proxy_start"
