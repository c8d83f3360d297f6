"""Why a connection ended: one closed list for log, metric and wire alike.

Every connection, refusal and tunnel ends with exactly one :class:`CloseReason`. The reason's value is the
access log's ``reason`` field and our metrics' ``reason`` label; :data:`FACTS` gives what else hangs on it: the
``response_flags`` label that Istio's dashboards know, the status a refused CONNECT is answered with, and a
sentence for the operator that names the cause and the remedy. Pure; used by both halves of the proxy.
"""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["FACTS", "CloseReason", "ReasonFacts", "flag_of", "sentence_of", "status_of"]


class CloseReason(StrEnum):
    """The stable short name of the way a connection ended."""

    COMPLETE = "complete"
    """Both directions ended with FIN."""
    CLIENT_RESET = "client_reset"
    """The side that opened the connection sent RST."""
    SERVER_RESET = "server_reset"
    """The side that accepted the connection sent RST."""
    POLICY_DENIED = "policy_denied"
    """A DENY policy matched."""
    POLICY_NOT_ALLOWED = "policy_not_allowed"
    """ALLOW policies apply and none matched."""
    POLICY_CHANGED = "policy_changed"
    """An open connection is no longer allowed after a change of policy, workload or identity."""
    POLICY_UNUSABLE = "policy_unusable"
    """A policy that applies here could not be understood: closed until it can be."""
    PEER_DENIED = "peer_denied"
    """The other node's proxy answered 401."""
    PEER_REFUSED = "peer_refused"
    """The other node's proxy answered with another status than 200 or 401."""
    PEER_UNREACHABLE = "peer_unreachable"
    """The other node's HBONE port could not be connected to."""
    PEER_TIMEOUT = "peer_timeout"
    """The other node's HBONE port, or its answer, did not come in time."""
    TUNNEL_LOST = "tunnel_lost"
    """The tunnel under the connection broke."""
    TUNNEL_PROTOCOL = "tunnel_protocol"
    """The peer broke the rules of HTTP/2 or of HBONE."""
    TUNNEL_FLOOD = "tunnel_flood"
    """The peer sent more control frames, headers or resets than any honest peer does."""
    TLS_FAILURE = "tls_failure"
    """The TLS handshake failed for a reason other than the peer's identity."""
    IDENTITY_MISMATCH = "identity_mismatch"
    """The peer's certificate is not for the identity or trust domain that was expected."""
    CERTIFICATE_EXPIRED = "certificate_expired"
    """The peer's certificate is expired or not valid yet."""
    CERTIFICATE_UNTRUSTED = "certificate_untrusted"
    """The peer's certificate does not chain to a root of ours, or there is none."""
    CERTIFICATE_UNAVAILABLE = "certificate_unavailable"
    """We have no certificate for the local workload."""
    APP_REFUSED = "app_refused"
    """The application refused the connection."""
    APP_UNREACHABLE = "app_unreachable"
    """The application could not be connected to, for another reason than refusing."""
    APP_TIMEOUT = "app_timeout"
    """The application did not accept within the connect timeout."""
    LOCAL_WORKLOAD_UNKNOWN = "local_workload_unknown"
    """No state has arrived for the workload on this side."""
    NO_HEALTHY_UPSTREAM = "no_healthy_upstream"
    """The service has no endpoint that can take the connection."""
    UNKNOWN_WAYPOINT = "unknown_waypoint"
    """A waypoint is named that cannot be resolved: closed, as going round it would go round its policy."""
    NO_ROUTE = "no_route"
    """The destination is in another network and there is no gateway to it."""
    SOURCE_SPOOFED = "source_spoofed"
    """The source address is not one that the connection can honestly have."""
    RECURSIVE_CALL = "recursive_call"
    """The destination is one of the proxy's own ports."""
    WRONG_DESTINATION = "wrong_destination"
    """CONNECT to an address that is not the workload on this side."""
    BAD_REQUEST = "bad_request"
    """A request that is not a CONNECT, or whose authority makes no sense."""
    NO_SERVICE_PORT = "no_service_port"
    """CONNECT to a host or port of a service that is not served here."""
    OVERLOADED = "overloaded"
    """A named limit of this proxy (descriptors, connections, buffers) is reached."""
    WORKLOAD_REMOVED = "workload_removed"
    """The workload left the mesh or was deleted."""
    DRAINED = "drained"
    """The proxy shut down and its drain deadline passed."""
    INTERNAL = "internal"
    """A fault of ours; the log has the trace."""


@dataclass(frozen=True, slots=True)
class ReasonFacts:
    """What hangs on a reason.

    ``flag``: value of Istio's ``response_flags`` label. ``status``: HTTP status of a refused CONNECT.
    ``sentence``: for the operator.
    """

    flag: str
    status: int
    sentence: str


_R = CloseReason

FACTS: dict[CloseReason, ReasonFacts] = {
    _R.COMPLETE: ReasonFacts("-", 200, "both sides closed the connection"),
    _R.CLIENT_RESET: ReasonFacts("-", 503, "the client reset the connection"),
    _R.SERVER_RESET: ReasonFacts("-", 503, "the server reset the connection"),
    _R.POLICY_DENIED: ReasonFacts(
        "DENY",
        401,
        "connection closed due to policy rejection: explicitly denied by a DENY policy; change the policy or the client",
    ),
    _R.POLICY_NOT_ALLOWED: ReasonFacts(
        "DENY",
        401,
        "connection closed due to policy rejection: allow policies exist, but none allowed; "
        "add a rule that allows this client and port",
    ),
    _R.POLICY_CHANGED: ReasonFacts(
        "DENY", 401, "connection closed due to policy change: it is no longer allowed; reconnect once a policy allows it"
    ),
    _R.POLICY_UNUSABLE: ReasonFacts(
        "DENY", 401, "a policy that applies to this workload cannot be understood, so everything is refused; see `ztunnel policies`"
    ),
    _R.PEER_DENIED: ReasonFacts(
        "DENY", 503, "http status: 401: the destination's policy refused this identity; its node's access log names the policy"
    ),
    _R.PEER_REFUSED: ReasonFacts("CONNECT", 503, "the destination's proxy refused the connection; its node's access log says why"),
    _R.PEER_UNREACHABLE: ReasonFacts(
        "CONNECT", 503, "connection failed: nothing answers on the destination's HBONE port 15008; is its node's ztunnel running?"
    ),
    _R.PEER_TIMEOUT: ReasonFacts("NETWORK_POLICY", 503, "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008"),
    _R.TUNNEL_LOST: ReasonFacts("CONNECT", 503, "the tunnel to the other node broke; its ztunnel stopped or the network failed"),
    _R.TUNNEL_PROTOCOL: ReasonFacts("H2_HANDSHAKE_FAILURE", 400, "http2 failed: the peer broke the HTTP/2 or HBONE protocol"),
    _R.TUNNEL_FLOOD: ReasonFacts(
        "H2_HANDSHAKE_FAILURE", 400, "http2 failed: the peer floods us with frames that carry no data; its tunnel is closed"
    ),
    _R.TLS_FAILURE: ReasonFacts("TLS_FAILURE", 503, "tls error: the handshake with the peer failed"),
    _R.IDENTITY_MISMATCH: ReasonFacts(
        "IDENTITY_ERROR", 503, "identity verification error: the peer's certificate is for another identity than expected"
    ),
    _R.CERTIFICATE_EXPIRED: ReasonFacts(
        "TLS_FAILURE", 503, "tls error: the peer's certificate is expired or not yet valid; check its renewal and both clocks"
    ),
    _R.CERTIFICATE_UNTRUSTED: ReasonFacts(
        "TLS_FAILURE", 503, "tls error: the peer has no certificate from a root we trust; only mesh proxies may use port 15008"
    ),
    _R.CERTIFICATE_UNAVAILABLE: ReasonFacts(
        "IDENTITY_ERROR", 503, "identity error: no certificate for the local workload yet; see `ztunnel certificates`"
    ),
    _R.APP_REFUSED: ReasonFacts(
        "CONNECT", 503, "connection failed: the application refused; is it listening on that port and address?"
    ),
    _R.APP_UNREACHABLE: ReasonFacts("CONNECT", 503, "connection failed: the application cannot be reached"),
    _R.APP_TIMEOUT: ReasonFacts("CONNECT", 503, "connection timed out: the application did not accept within 10 s"),
    _R.LOCAL_WORKLOAD_UNKNOWN: ReasonFacts(
        "-", 503, "failed to fetch information about local workload: no state has arrived for it; see `ztunnel workloads`"
    ),
    _R.NO_HEALTHY_UPSTREAM: ReasonFacts(
        "-", 503, "no healthy upstream: the service has no ready endpoint for that port; see `ztunnel services`"
    ),
    _R.UNKNOWN_WAYPOINT: ReasonFacts("-", 503, "unknown waypoint: the destination names a waypoint that does not exist"),
    _R.NO_ROUTE: ReasonFacts("-", 503, "no valid routing destination for workload: it is in another network without a gateway"),
    _R.SOURCE_SPOOFED: ReasonFacts(
        "-", 503, "the source address is not the client's own; does the state list all addresses of the pod?"
    ),
    _R.RECURSIVE_CALL: ReasonFacts(
        "-", 503, "attempted recursive call to ourselves: ports 15001, 15006 and 15008 belong to the proxy"
    ),
    _R.WRONG_DESTINATION: ReasonFacts("-", 400, "ip mismatch: CONNECT to an address that is not this workload"),
    _R.BAD_REQUEST: ReasonFacts("-", 400, "not a CONNECT request with a valid authority"),
    _R.NO_SERVICE_PORT: ReasonFacts("-", 503, "the requested service or port is not served by this workload"),
    _R.OVERLOADED: ReasonFacts("CONNECT", 503, "a limit of the proxy is reached; see its metrics for which"),
    _R.WORKLOAD_REMOVED: ReasonFacts("-", 503, "the workload left the mesh"),
    _R.DRAINED: ReasonFacts("-", 503, "connection closed due to connection drain: the proxy shut down"),
    _R.INTERNAL: ReasonFacts("CONNECT", 503, "internal error of the proxy; please report the log line"),
}


def flag_of(reason: CloseReason) -> str:
    """Istio's ``response_flags`` label for ``reason``."""
    return FACTS[reason].flag


def status_of(reason: CloseReason) -> int:
    """HTTP status a CONNECT refused for ``reason`` is answered with."""
    return FACTS[reason].status


def sentence_of(reason: CloseReason) -> str:
    """The operator's sentence for ``reason``."""
    return FACTS[reason].sentence
