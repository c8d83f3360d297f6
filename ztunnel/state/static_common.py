"""What workloads and services of a static file have in common: names, references, gateway addresses."""

import re
from typing import Final

from ztunnel.state.addresses import canonical_ip
from ztunnel.state.fields import Faults, Fields, read_text
from ztunnel.state.model import GatewayAddress
from ztunnel.state.yaml_nodes import Node

__all__ = ["check_hostname", "check_name", "check_network", "read_destination", "read_gateway", "read_reference"]

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_HOSTNAME = re.compile(r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,250}[A-Za-z0-9_])?")
_NETWORK = re.compile(r"[A-Za-z0-9._-]{0,253}")
_GATEWAY: Final = frozenset({"destination", "hboneMtlsPort"})


def check_name(fields: Fields, name: str, value: str) -> str:
    """A name that stands in a SPIFFE id or a key: letters, digits, ``.``, ``_``, ``-``. "" with a fault noted."""
    if _NAME.fullmatch(value) is None:
        node = fields.node(name)
        line = node.line if node is not None else fields.line
        fields.faults.add(line, fields.at(name), f"{value[:80]!r} is not a name of letters, digits, '.', '_' and '-'")
        return ""
    return value


def check_network(faults: Faults, line: int, path: str, value: str) -> str:
    """A network's name, which may be empty."""
    if _NETWORK.fullmatch(value) is None:
        faults.add(line, path, f"{value[:80]!r} is not a network name of letters, digits, '.', '_' and '-'")
        return ""
    return value


def check_hostname(faults: Faults, line: int, path: str, value: str) -> str:
    """A DNS name, perhaps with a leading ``*.``."""
    if _HOSTNAME.fullmatch(value) is None:
        faults.add(line, path, f"{value[:80]!r} is not a hostname")
        return ""
    return value


def read_reference(faults: Faults, line: int, path: str, text: str, second: str) -> str:
    """``namespace/<second>``; "" with a fault noted."""
    namespace, slash, name = text.partition("/")
    if not slash or _NAME.fullmatch(namespace) is None or "/" in name or _HOSTNAME.fullmatch(name) is None:
        faults.add(line, path, f"{text[:80]!r} is not of the form namespace/{second}")
        return ""
    return text


def read_gateway(faults: Faults, node: Node, path: str) -> GatewayAddress | None:
    """``{destination: network/ip or namespace/hostname, hboneMtlsPort}``; what follows the slash tells which."""
    fields = Fields(faults, node, path, _GATEWAY)
    port = fields.integer("hboneMtlsPort", 15008, 1, 65535)
    destination = fields.require("destination", "write network/ip or namespace/hostname")
    return None if destination is None else read_destination(faults, destination, fields.at("destination"), port)


def read_destination(faults: Faults, node: Node, path: str, port: int) -> GatewayAddress | None:
    """The gateway named by the string ``network/ip`` or ``namespace/hostname``, at ``port``."""
    text = read_text(faults, node, path)
    if not text:
        return None
    first, slash, second = text.partition("/")
    ip = canonical_ip(second) if slash else None
    if ip is not None and _NETWORK.fullmatch(first) is not None:
        return GatewayAddress(f"{first}/{ip}", port, True)
    if not read_reference(faults, node.line, path, text, "hostname, nor of the form network/ip"):
        return None
    return GatewayAddress(text, port)
