"""YAML text as a tree of nodes that know their lines. Used by the static file reader; knows nothing of workloads.

Built from PyYAML's C events by a loop of our own: composing recursively lets a deeply nested text end the process, and
expanding aliases lets a short one fill the memory. So depth is bounded, and anchors, aliases and tags are refused. Scalars keep
their text; what type it has is decided by YAML 1.2's core schema (``1.10`` is a number, ``on`` and ``12:30`` are strings).
"""

import re
from dataclasses import dataclass
from typing import Final

import yaml

__all__ = ["MAX_DEPTH", "MapNode", "Node", "ScalarNode", "SeqNode", "YamlTextError", "parse_yaml"]

MAX_DEPTH: Final = 32
"""Nested lists and mappings; an honest file needs 9."""

_NUMBER = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|0o[0-7]+|0x[0-9a-fA-F]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_INTEGER = re.compile(r"[-+]?[0-9]{1,19}")
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"true", "True", "TRUE"})
_FALSE: Final = frozenset({"false", "False", "FALSE"})


class YamlTextError(Exception):
    """The text is no YAML, or YAML that is refused. ``line`` from 1."""

    def __init__(self, line: int, cause: str) -> None:
        self.line, self.cause = line, cause
        super().__init__(f"line {line}: {cause}")


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """One scalar. ``quoted``: a string whatever it looks like."""

    line: int
    text: str
    quoted: bool

    @property
    def value(self) -> str | int | float | bool | None:
        """The value by YAML 1.2's core schema."""
        text = self.text
        if self.quoted:
            return text
        if text in _NULLS:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if _INTEGER.fullmatch(text) is not None:
            return int(text)
        if _NUMBER.fullmatch(text) is not None:
            return int(text, 0) if text[:2] in ("0x", "0o") else float(text.replace(".inf", "inf").replace(".nan", "nan"))
        return text


@dataclass(frozen=True, slots=True)
class SeqNode:
    """A list."""

    line: int
    items: list["Node"]


@dataclass(frozen=True, slots=True)
class MapNode:
    """A mapping, its keys as they stand there: duplicates are the reader's to find."""

    line: int
    pairs: list[tuple[ScalarNode, "Node"]]


Node = ScalarNode | SeqNode | MapNode


def parse_yaml(text: str) -> Node:
    """The one document of ``text``. Raises YamlTextError, and nothing else, for whatever text."""
    try:
        return _build(yaml.CSafeLoader(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        cause = " ".join(part for part in (error.context, error.problem) if part)
        raise YamlTextError(mark.line + 1 if mark is not None else 1, f"not YAML: {cause}") from None
    except (yaml.YAMLError, UnicodeError, ValueError) as error:
        line = " ".join(str(error).split())[:200]
        raise YamlTextError(1, f"not YAML: {line}") from None


def _build(loader: yaml.CSafeLoader) -> Node:
    root: Node | None = None
    stack: list[tuple[SeqNode | MapNode, list[ScalarNode]]] = []
    documents = 0
    while True:
        event = loader.get_event()
        if event is None or isinstance(event, yaml.StreamEndEvent):
            break
        line = event.start_mark.line + 1 if event.start_mark is not None else 1
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise YamlTextError(line, "a second document; put everything into one")
            continue
        if isinstance(event, yaml.AliasEvent):
            raise YamlTextError(line, "an alias (*name); write the value out")
        if isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            stack.pop()
            continue
        if not isinstance(event, (yaml.ScalarEvent, yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            continue
        if event.anchor is not None:
            raise YamlTextError(line, "an anchor (&name); write the value out where it is needed")
        if event.tag is not None:
            raise YamlTextError(line, "a tag (!name); leave it out, quote what is to be a string")
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = ScalarNode(line, event.value, event.style not in (None, ""))
        elif len(stack) >= MAX_DEPTH:
            raise YamlTextError(line, f"nested more than {MAX_DEPTH} deep")
        else:
            node = SeqNode(line, []) if isinstance(event, yaml.SequenceStartEvent) else MapNode(line, [])
        if not stack:
            root = node
        else:
            _place(stack[-1], node)
        if not isinstance(node, ScalarNode):
            stack.append((node, []))
    if root is None:
        raise YamlTextError(1, "empty; write `workloads: []` for no workloads")
    return root


def _place(top: tuple[SeqNode | MapNode, list[ScalarNode]], node: Node) -> None:
    """Put ``node`` into the open list or mapping; a mapping's key waits in the second half of ``top`` for its value."""
    container, key = top
    if isinstance(container, SeqNode):
        container.items.append(node)
    elif key:
        container.pairs.append((key.pop(), node))
    elif isinstance(node, ScalarNode):
        key.append(node)
    else:
        raise YamlTextError(node.line, "a list or mapping as a key")
