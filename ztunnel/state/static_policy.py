"""One policy of a static file: hands the policy room a plain value and gives its complaints their lines back."""

from policy.errors import PolicyFormError
from policy.model import Authorization
from policy.static_form import parse_static
from ztunnel.state.fields import Faults, child, entries
from ztunnel.state.yaml_nodes import MapNode, Node, ScalarNode, SeqNode

__all__ = ["read_policy"]


def read_policy(faults: Faults, node: Node, path: str) -> Authorization | None:
    """A policy, or None with faults noted. A policy that is not wholly understood is never used."""
    before = len(faults.problems)
    lines: dict[str, int] = {}
    value = _plain(faults, node, path, lines)
    if len(faults.problems) > before:
        return None
    try:
        return parse_static(value, path)
    except PolicyFormError as error:
        for where, cause in error.problems:
            faults.add(_line(lines, where, node.line), where, cause)
        return None


def _plain(faults: Faults, node: Node, path: str, lines: dict[str, int]) -> object:
    """``node`` as dicts, lists and scalars; ``lines`` gets the line of every path. Depth is bounded by the YAML reader."""
    lines[path] = node.line
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, SeqNode):
        return [_plain(faults, item, child(path, index), lines) for index, item in enumerate(node.items)]
    assert isinstance(node, MapNode)
    return {key.text: _plain(faults, value, where, lines) for key, value, where in entries(faults, node, path)}


def _line(lines: dict[str, int], path: str, default: int) -> int:
    """The line of ``path``, or of the longest known path it begins with: what is missing has no line of its own."""
    while path:
        if path in lines:
            return lines[path]
        cut = max(path.rfind("."), path.rfind("["))
        path = path[: max(cut, 0)]
    return default
