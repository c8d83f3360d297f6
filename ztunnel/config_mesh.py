"""The part of Istio's mesh configuration that a node proxy heeds: ``defaultConfig`` of the mesh file, and PROXY_CONFIG.

Both are YAML documents for many readers, so unknown fields are nobody's fault here; what this proxy reads of them is checked.
"""

from typing import Final

from ztunnel.config_values import MeshConfig, MeshConfigError, address
from ztunnel.state.yaml_nodes import MapNode, Node, ScalarNode, YamlTextError, parse_yaml

__all__ = ["read_mesh_config", "read_proxy_config"]

_IGNORED: Final = {
    "concurrency": "the data plane is one loop; its count is set by --workers",
    "proxyMetadata": "the DNS proxy it configures is not built",
}


def read_mesh_config(body: str) -> MeshConfig:
    """``defaultConfig`` of a mesh configuration; nothing for an empty text. Raises MeshConfigError."""
    root = _parse(body)
    return MeshConfig() if root is None else _read(_pairs(root, "the document").get("defaultConfig"), "defaultConfig")


def read_proxy_config(body: str) -> MeshConfig:
    """A proxy configuration by itself. Raises MeshConfigError."""
    return _read(_parse(body), "the document")


def _parse(body: str) -> Node | None:
    if not body.strip():
        return None
    try:
        return parse_yaml(body)
    except YamlTextError as error:
        raise MeshConfigError(str(error)) from None


def _pairs(node: Node, what: str) -> dict[str, Node]:
    if not isinstance(node, MapNode):
        raise MeshConfigError(f"line {node.line}: expected {what} to be a mapping")
    return {key.text: value for key, value in node.pairs}


def _read(node: Node | None, what: str) -> MeshConfig:
    if node is None or (isinstance(node, ScalarNode) and node.value is None):
        return MeshConfig()
    fields = _pairs(node, what)
    discovery = fields.get("discoveryAddress")
    found = ""
    if discovery is not None:
        try:
            found = address(discovery.text if isinstance(discovery, ScalarNode) else "{}")
        except ValueError as error:
            raise MeshConfigError(f"line {discovery.line}: discoveryAddress: expected {error}") from None
    ignored = tuple((f"PROXY_CONFIG {name}", why) for name, why in _IGNORED.items() if name in fields)
    return MeshConfig(_port(fields, "proxyAdminPort"), _port(fields, "statsPort"), found, ignored)


def _port(fields: dict[str, Node], name: str) -> int:
    node = fields.get(name)
    if node is None:
        return 0
    value = node.value if isinstance(node, ScalarNode) else None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 65536:
        raise MeshConfigError(f"line {node.line}: {name}: expected a port from 1 to 65535")
    return value
