"""The direction of imports, and what each room may not touch, checked over the source without running it.

`policy`, `capture` <- `ztunnel` <- `ambient`; nothing imports from `tests` or `perf`; the cores import no I/O, no clock and no
randomness; the data-plane process loads no event loop, no YAML, no metrics library. Every import statement counts, also
those inside functions and under TYPE_CHECKING, and so does `importlib.import_module("literal")`; only the last test, on
heavy modules, lets functions off.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {
    "policy": {"policy"},
    "capture": {"capture"},
    "ztunnel": {"ztunnel", "policy", "capture"},
    "ambient": {"ambient", "ztunnel", "policy", "capture"},
}
OURS = {*ROOMS, "tests", "perf", "systemd"}

IO = {"socket", "ssl", "select", "selectors", "asyncio", "trio", "threading", "subprocess", "time", "random", "secrets", "OpenSSL"}
HEAVY = {"bcc", "iptc", "pyroute2", "kubernetes", "textual"}
NOT_IN_DATAPLANE = {"trio", "grpc", "h11", "h2", "prometheus_client", "structlog", "click", "rich", "yaml", *HEAVY}

# (files, modules they may not import, files let off with the modules they may have all the same).
RULES: list[tuple[str, set[str], dict[str, set[str]]]] = [
    ("policy/*", IO | {"os", "signal", "mmap"}, {}),
    ("ztunnel/hbone/*", IO, {"ztunnel/hbone/tls*": {"OpenSSL"}}),
    ("ztunnel/route/*", IO, {}),
    ("ztunnel/dataplane/*", NOT_IN_DATAPLANE, {}),
    ("ztunnel/hbone/*", NOT_IN_DATAPLANE, {}),
    ("ztunnel/route/*", NOT_IN_DATAPLANE, {}),
    # The static file's reader runs in the control half; that the data plane does not load it is checked at run time below.
    ("ztunnel/state/*", NOT_IN_DATAPLANE, {"ztunnel/state/static.py": {"yaml"}, "ztunnel/state/yaml_nodes.py": {"yaml"}}),
    ("ztunnel/*", {"bcc", "iptc", "pyroute2", "textual", "kubernetes"}, {}),
]


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module: where it is written, its full dotted name, and whether importing the file runs it."""

    file: str
    line: int
    module: str
    at_import_time: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def imports_of(source: str, file: str) -> list[Import]:
    """Every import in `source`; `file` is its path in the tree and resolves relative imports."""
    package = Path(file).parent.parts
    found: list[Import] = []

    def visit(node: ast.AST, live: bool) -> None:
        names: list[str] = []
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom(module=module, level=level):
                base = [*package[: len(package) - level + 1]] if level else []
                start = ".".join([*base, *([module] if module else [])])
                # `from a import b` may name a module a.b; for the top of the name, which all rules look at, it is the same.
                names = [start] if start not in {"", *ROOMS} else [f"{start}.{alias.name}".strip(".") for alias in node.names]
            case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"), args=[first, *_]):
                names = [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                live = False
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                for statement in node.body:
                    visit(statement, False)
                for statement in node.orelse:
                    visit(statement, live)
                return
        found.extend(Import(file, getattr(node, "lineno", 0), name, live) for name in names)
        for child in ast.iter_child_nodes(node):
            visit(child, live)

    visit(ast.parse(source, file), True)
    return found


def all_imports() -> Iterator[Import]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield from imports_of(path.read_text(), str(path.relative_to(ROOT)))


@pytest.fixture(scope="module")
def tree() -> list[Import]:
    found = list(all_imports())
    assert {i.file.partition("/")[0] for i in found} >= {"policy", "ztunnel"}, "the walk found no source"
    return found


def breaches(imports: list[Import], files: str, banned: set[str], let_off: dict[str, set[str]]) -> list[str]:
    """The imports of `files` (a glob, * crosses folders) that are in `banned` and not let off."""
    return [
        str(i)
        for i in imports
        if fnmatch(i.file, files)
        and i.top in banned
        and not any(fnmatch(i.file, glob) and i.top in allowed for glob, allowed in let_off.items())
    ]


def wrong_arrows(imports: list[Import]) -> list[str]:
    """The imports of one room of ours by another that may not see it."""
    return [str(i) for i in imports if i.top in OURS - ROOMS[i.file.partition("/")[0]]]


def test_rooms_import_one_way(tree: list[Import]) -> None:
    assert wrong_arrows(tree) == []


@pytest.mark.parametrize(("files", "banned", "let_off"), RULES, ids=[f"{files}-{len(banned)}" for files, banned, _ in RULES])
def test_room_does_without(tree: list[Import], files: str, banned: set[str], let_off: dict[str, set[str]]) -> None:
    assert breaches(tree, files, banned, let_off) == []


def test_heavy_modules_are_imported_inside_functions_only(tree: list[Import]) -> None:
    assert [str(i) for i in tree if i.top in HEAVY and i.at_import_time] == []


def test_dataplane_process_loads_none_of_them() -> None:
    """The same promise at run time, through everything the data plane imports, other people's modules included."""
    if not (ROOT / "ztunnel/dataplane/main.py").exists():
        pytest.skip("ztunnel/dataplane/main.py does not exist yet")
    probe = "import json, sys, ztunnel.dataplane.main; json.dump(sorted(sys.modules), sys.stdout)"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert "ztunnel" in loaded
    assert loaded & NOT_IN_DATAPLANE == set()


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import a.b as c, d", ["a.b", "d"]),
        ("from . import x", ["ztunnel.hbone"]),
        ("from ..route import x", ["ztunnel.route"]),
        ("from ... import policy", ["policy"]),
        ("from policy import model", ["policy.model"]),
        ("import importlib\nimportlib.import_module('iptc')", ["importlib", "iptc"]),
        ("x = __import__('bcc')", ["bcc"]),
        ("def f():\n  import iptc", ["iptc"]),
    ],
)
def test_the_walk_sees(source: str, modules: list[str]) -> None:
    assert [i.module for i in imports_of(source, "ztunnel/hbone/x.py")] == modules


def test_the_walk_knows_what_runs_at_import() -> None:
    source = """
import a
if TYPE_CHECKING:
    import b
else:
    import c
class K:
    import d
    def f(self): import e
try:
    import f
except ImportError:
    pass
"""
    live = {i.module for i in imports_of(source, "policy/x.py") if i.at_import_time}
    assert live == {"a", "c", "d", "f"}


def test_a_wrong_arrow_is_seen() -> None:
    assert wrong_arrows(imports_of("import ztunnel.state", "policy/x.py")) == ["policy/x.py:1 imports ztunnel.state"]
    assert wrong_arrows(imports_of("from tests import conftest", "ambient/lab/x.py"))
    assert wrong_arrows(imports_of("def f():\n  from capture import rules", "policy/x.py"))
    assert not wrong_arrows(imports_of("import policy.model, capture", "ztunnel/x.py"))
    files, banned, let_off = RULES[1]
    assert not breaches(imports_of("from OpenSSL import SSL", "ztunnel/hbone/tls.py"), files, banned, let_off)
    assert breaches(imports_of("from OpenSSL import SSL", "ztunnel/hbone/frames.py"), files, banned, let_off)
    assert breaches(imports_of("import time", "ztunnel/hbone/tls.py"), files, banned, let_off)
