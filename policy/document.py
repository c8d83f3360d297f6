"""YAML text as nodes that know their path and line: what :mod:`policy.istio` reads strictly.

Bounded: size of the text, depth, number of values visited (an alias counts each time it is followed). Reading methods
collect problems and return something harmless; the caller looks at ``problems`` at the end and uses nothing if there are
any. Parsing text is all that PyYAML does here: nothing is constructed.
"""

from collections.abc import Callable, Collection
from typing import TypeVar

import yaml

from policy.errors import DocumentProblem, PolicyDocumentError, nearest

__all__ = ["MAX_DEPTH", "MAX_TEXT", "MAX_VALUES", "Fields", "Reader"]

MAX_TEXT = 4 << 20
"""Characters of one text."""
MAX_DEPTH = 32
"""Levels of nesting; an AuthorizationPolicy has 9."""
MAX_VALUES = 200_000
"""Values read from one text."""
MAX_PROBLEMS = 100
"""Problems collected before reading stops."""

_STRING = "tag:yaml.org,2002:str"
_NULL = "tag:yaml.org,2002:null"
_T = TypeVar("_T")

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Fields = dict[str, yaml.Node]


class Reader:
    """Reads the nodes of one text and remembers what is wrong with them. ``file`` is only for messages."""

    def __init__(self, file: str) -> None:
        self.problems: list[DocumentProblem] = []
        self._file = file
        self._visited = 0

    def documents(self, text: str) -> list[yaml.Node]:
        """Return the documents that are not empty.

        Raises:
            PolicyDocumentError: the text is not YAML, is too big or too deep.
        """
        if len(text) > MAX_TEXT:
            raise self._fatal(0, 0, f"{len(text)} characters, more than {MAX_TEXT}")
        try:
            self._refuse_deep(text)
            nodes = list(yaml.compose_all(text, Loader=_Loader))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
            raise self._fatal(*place, f"not YAML: {error.problem or error.context or error}") from None
        except (yaml.YAMLError, ValueError) as error:
            raise self._fatal(0, 0, f"not YAML: {str(error).splitlines()[0] if str(error) else 'unreadable'}") from None
        return [node for node in nodes if node is not None and node.tag != _NULL]

    def fields(self, node: yaml.Node, path: str, valid: Collection[str] | None) -> Fields:
        """Read a mapping whose keys are all in ``valid``, and each there once; ``None`` takes any key."""
        found: Fields = {}
        if not isinstance(node, yaml.MappingNode):
            self.problem(node, path, f"must be a mapping, is {_kind(node)}")
            return found
        for key_node, value in node.value:
            self._visit(key_node, path)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problem(key_node, path, f"a key must be a string, is {_kind(key_node)}")
                continue
            key = key_node.value
            if valid is not None and key not in valid:
                self.problem(key_node, path, f"unknown field {key[:64]!r}; {nearest(key, valid)}")
            elif key in found:
                self.problem(key_node, path, f"{key[:64]!r} is there twice")
            else:
                found[key] = value
        return found

    def items(self, node: yaml.Node, path: str, item: Callable[[yaml.Node, str], _T], *, least: int = 0) -> list[_T]:
        """Read a list with ``item``; with ``least`` 1 an empty one is an error."""
        if not isinstance(node, yaml.SequenceNode):
            self.problem(node, path, f"must be a list, is {_kind(node)}")
            return []
        if len(node.value) < least:
            self.problem(node, path, "must not be empty: leave it out to match anything")
        return [item(value, f"{path}[{index}]") for index, value in enumerate(node.value)]

    def text(self, node: yaml.Node, path: str) -> str:
        """Read a string that is not empty."""
        self._visit(node, path)
        if not isinstance(node, yaml.ScalarNode) or node.tag != _STRING:
            hint = f'; write "{node.value}"' if isinstance(node, yaml.ScalarNode) and node.tag != _NULL else ""
            self.problem(node, path, f"must be a string, is {_kind(node)}{hint}")
        elif not node.value:
            self.problem(node, path, "must not be empty")
        else:
            return str(node.value)
        return ""

    def texts(self, node: yaml.Node, path: str) -> dict[str, str]:
        """Read a mapping of strings, as labels and annotations are; values may be empty."""
        found = {}
        for key, value in self.fields(node, path, None).items():
            if isinstance(value, yaml.ScalarNode) and value.tag == _STRING:
                found[key] = str(value.value)
            else:
                self.text(value, f"{path}.{key}")
        return found

    def choice(self, node: yaml.Node, path: str, valid: Collection[str], what: str) -> str:
        """Read one of some strings."""
        text = self.text(node, path)
        if text and text not in valid:
            self.problem(node, path, f"unknown {what} {text[:64]!r}; {nearest(text, valid)}")
            return ""
        return text

    def problem(self, node: yaml.Node, path: str, cause: str) -> None:
        """Note what is wrong, and where.

        Raises:
            PolicyDocumentError: it is one too many.
        """
        self.problems.append(DocumentProblem(self._file, node.start_mark.line + 1, node.start_mark.column + 1, path, cause))
        if len(self.problems) >= MAX_PROBLEMS:
            raise PolicyDocumentError(tuple(self.problems))

    def _visit(self, node: yaml.Node, path: str) -> None:
        self._visited += 1
        if self._visited > MAX_VALUES:
            raise self._fatal(node.start_mark.line + 1, node.start_mark.column + 1, f"more than {MAX_VALUES} values, at {path}")

    def _refuse_deep(self, text: str) -> None:
        # Composing recurses and parsing does not: depth is looked at before there is a stack to overflow.
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    mark = event.start_mark
                    place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
                    raise self._fatal(*place, f"nested deeper than {MAX_DEPTH} levels")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1

    def _fatal(self, line: int, column: int, cause: str) -> PolicyDocumentError:
        return PolicyDocumentError((*self.problems, DocumentProblem(self._file, line, column, "", cause)))


def _kind(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    return {
        _STRING: "a string",
        _NULL: "empty",
        "tag:yaml.org,2002:int": "a number",
        "tag:yaml.org,2002:float": "a number",
        "tag:yaml.org,2002:bool": "a boolean",
    }.get(node.tag, node.tag.rpartition(":")[2])
