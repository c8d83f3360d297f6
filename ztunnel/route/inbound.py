"""What an incoming connection is for. Pure: called by the data plane for a CONNECT on 15008 and a connection on 15006.

The address that bytes are delivered to is always the one the connection was accepted on: a peer's authority can choose the port,
and be refused, but can never point us elsewhere. Policy comes after, with the delivered address and port.
"""

from ztunnel.reasons import CloseReason
from ztunnel.route.authority import Authority, join, parse_authority
from ztunnel.route.decision import Deliver, Refuse
from ztunnel.route.ports import PROXY_PORTS
from ztunnel.route.waypoint import is_waypoint_of
from ztunnel.state.endpoints import target_port
from ztunnel.state.model import Service, Workload
from ztunnel.state.store import State

__all__ = ["route_connect", "route_plaintext"]


def route_connect(
    state: State,
    local: Workload,
    local_ip: str,
    authority: str,
    *,
    method: str,
    forwarded_host: str = "",
    localhost_app_tunnel: bool = True,
) -> Deliver | Refuse:
    """The answer to one request of a peer on the HBONE port of ``local``, accepted on ``local_ip`` (canonical text).

    ``forwarded_host`` is the peer's ``forwarded: host=``, used for telemetry only. ``localhost_app_tunnel``: PROXY-protocol
    application tunnels are dialled on loopback (LOCALHOST_APP_TUNNEL).

    An address is accepted if it is ``local_ip``, if ``local`` has an application tunnel, or if what it belongs to names ``local``
    as its waypoint. A hostname is accepted if ``local`` is an endpoint of that service or its waypoint, has an application
    tunnel, or has that hostname itself.
    """
    if method != "CONNECT":
        return Refuse(CloseReason.BAD_REQUEST, f"method {_shown(method)}")
    wanted = parse_authority(authority)
    if wanted is None:
        return Refuse(CloseReason.BAD_REQUEST, f"authority {_shown(authority)}")
    tunnel = local.application_tunnel
    port = wanted.port
    service = ""
    if not wanted.is_ip:
        named = _port_of_host(state, local, wanted)
        if isinstance(named, Refuse):
            return named
        port, service = named
    elif wanted.host != local_ip and tunnel is None and not _waypoint_for(state, local, wanted.host):
        return Refuse(CloseReason.WRONG_DESTINATION, f"{local_ip} != {wanted.host}")
    if port in PROXY_PORTS or (tunnel is not None and tunnel.port in PROXY_PORTS):
        return Refuse(CloseReason.RECURSIVE_CALL, join(local_ip, port))
    service = service or _guess_service(state, local, port, forwarded_host)
    if tunnel is None:
        return Deliver(local_ip, port, service)
    if not tunnel.proxy_protocol:
        return Deliver(local_ip, tunnel.port or port, service)
    target = _proxy_target(state, local, wanted, port)
    if target is None:
        return Refuse(CloseReason.NO_SERVICE_PORT, f"{authority}: no address to name in the PROXY header")
    ip = local_ip
    if localhost_app_tunnel:
        ip = "::1" if ":" in local_ip else "127.0.0.1"
    return Deliver(ip, tunnel.port or port, service, proxy_target=target)


def route_plaintext(state: State, local: Workload, ip: str, port: int) -> Deliver | Refuse:
    """The answer to a plain connection captured on its way to ``ip:port`` of ``local``.

    A waypoint of ``local`` plays no part: there is no peer identity to trust and no way back through it.
    """
    if port in PROXY_PORTS:
        return Refuse(CloseReason.RECURSIVE_CALL, join(ip, port))
    return Deliver(ip, port, _guess_service(state, local, port, ""))


def _port_of_host(state: State, local: Workload, wanted: Authority) -> tuple[int, str] | Refuse:
    """(port, service key) behind ``host:port``, of the best of the services of that name that are served here."""
    host, port, _ = wanted
    ours = [s for s in state.services_of_host(host) if _serves(state, local, s)]
    if not ours:
        if host == local.hostname:
            return port, ""
        return Refuse(CloseReason.NO_SERVICE_PORT, f"{host}:{port}: not a service or hostname of this workload")
    service = min(ours, key=lambda s: (s.namespace != local.namespace, not s.canonical, s.key))
    at = target_port(service, local, port)
    if not at:
        # An application tunnel takes any port: its own is used in place of it.
        if local.application_tunnel is not None and local.application_tunnel.port:
            return port, service.key
        return Refuse(CloseReason.NO_SERVICE_PORT, f"{service.key}:{port}: found, but its port cannot be resolved here")
    return at, service.key


def _serves(state: State, local: Workload, service: Service) -> bool:
    return (
        service.key in local.services
        or local.application_tunnel is not None
        or is_waypoint_of(state, service, local, service.namespace)
    )


def _waypoint_for(state: State, local: Workload, ip: str) -> bool:
    """Does whatever has the address ``ip`` name ``local`` as its waypoint?"""
    if any(is_waypoint_of(state, service, local, service.namespace) for service in state.services_at(local.network, ip)):
        return True
    target = state.workload_by_address(local.network, ip)
    return target is not None and is_waypoint_of(state, target, local, target.namespace)


def _proxy_target(state: State, local: Workload, wanted: Authority, port: int) -> str | None:
    """What the PROXY header names as destination: the address asked for, or the service's: own network and IPv4 first."""
    if wanted.is_ip:
        return join(wanted.host, wanted.port)
    vips = [
        vip.rpartition("/")
        for service in state.services_of_host(wanted.host)
        if _serves(state, local, service)
        for vip in service.vips
    ]
    if not vips:
        return None
    _, _, ip = min(vips, key=lambda vip: (vip[0] != local.network, ":" in vip[2]))
    return join(ip, wanted.port)


def _guess_service(state: State, local: Workload, port: int, forwarded_host: str) -> str:
    """For telemetry only: the service of the peer's ``forwarded`` host if it is ours, else the first with that target port."""
    found = ""
    for key, ports in local.services.items():
        if forwarded_host and key.partition("/")[2] == forwarded_host:
            return key
        if not found:
            if port in ports.values():
                found = key
            else:
                service = state.service(key)
                if service is not None and any(p not in ports and target == port for p, target in service.ports.items()):
                    found = key
    return found


def _shown(text: str) -> str:
    """A peer's text for the log: quoted, bounded."""
    return repr(text[:80])
