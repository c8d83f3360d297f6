"""The house itself: what ships, what the locks hold, and what no file may name."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ["ambient", "ztunnel", "capture", "policy"]
TOP_LEVEL = {
    *PACKAGES, "systemd", "tests", "perf", "docs",
    "pyproject.toml", "requirements.lock", "README.md", "LICENSE", "NOTICE", "Makefile",
}  # fmt: skip

# Somebody's own machine, in any text of the tree. Written so that this file does not match itself.
PRIVATE_PATH = re.compile(r"(?<![\w.*/}$-])/(?:work|root|home/\w+|Users/\w+|opt/wheels)(?=/)")
# The servers of Python, Rust, JavaScript, Go, Java, Debian and Ubuntu packages: which one is used is the machine's business.
REGISTRY = re.compile(
    r"pypi\.org|pythonhosted\.org|crates\.io|npmjs\.(?:org|com)|proxy\.golang\.org|repo1?\.maven\."
    r"|deb\.debian\.org|security\.debian\.org|(?:archive|ports|security)\.ubuntu\.com"
    r"|--(?:extra-)?index-url|--find-links"
)


def tree() -> list[Path]:
    """The files that are, or by the next commit will be, in the repository."""
    # Run by root in a user's checkout, git asks for this before it answers.
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        pytest.skip(f"needs git and a git checkout: {done.stderr.strip()}")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def findings(pattern: re.Pattern[str]) -> list[str]:
    """`file:line: text` for every match in a text file of the tree, this file left out: it must name what it bans."""
    found = []
    for path in tree():
        data = path.read_bytes()
        if b"\0" in data or path == Path(__file__):
            continue
        lines = enumerate(data.decode("utf-8", "replace").splitlines(), 1)
        found += [f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}" for number, line in lines if pattern.search(line)]
    return found


def pins(lock: str) -> dict[str, str]:
    """Package to version, from a lock file."""
    text = (ROOT / lock).read_text()
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


def test_no_file_names_a_private_path() -> None:
    assert findings(PRIVATE_PATH) == []


def test_no_file_names_a_package_registry() -> None:
    assert findings(REGISTRY) == []


@pytest.mark.parametrize(
    ("text", "caught"), [(" /" + "root/x", True), ("a /" + "home/me/x", True), ("/proc/1/" + "root/etc", False)]
)
def test_private_paths_are_recognised(text: str, caught: bool) -> None:
    assert bool(PRIVATE_PATH.search(text)) is caught


def test_top_level_is_tidy() -> None:
    top = {path.relative_to(ROOT).parts[0] for path in tree()}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_says_what_it_promises(package: str) -> None:
    sources = [path for path in (ROOT / package).rglob("*.py") if not path.stem.endswith(("_pb2", "_pb2_grpc"))]
    assert sources
    bare = [str(path.relative_to(ROOT)) for path in sources if not ast.get_docstring(ast.parse(path.read_text()))]
    assert bare == []


@pytest.mark.parametrize("name", ["ambient", "ztunnel"])
def test_console_script_resolves(name: str) -> None:
    assert PYPROJECT["project"]["scripts"][name] == f"{name}.cli:main"
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name=name)
    assert callable(entry.load())


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("requirements.lock", PYPROJECT["project"]["dependencies"]),
        (".ci/build.lock", PYPROJECT["dependency-groups"]["build"]),
        (".ci/dev.lock", PYPROJECT["project"]["dependencies"] + PYPROJECT["dependency-groups"]["dev"]),
    ],
)
def test_lock_answers_pyproject(lock: str, wanted: list[str]) -> None:
    locked = pins(lock)
    unmet = [
        want
        for want in wanted
        if not (requirement := Requirement(want)).specifier.contains(locked.get(canonicalize_name(requirement.name), "0"))
        or canonicalize_name(requirement.name) not in locked
    ]
    assert unmet == [], f"{lock} is stale: run make lock"


def test_locks_agree_and_every_pin_has_a_hash() -> None:
    runtime, build, dev = pins("requirements.lock"), pins(".ci/build.lock"), pins(".ci/dev.lock")
    assert runtime.items() <= dev.items()
    assert all(dev.get(name, version) == version for name, version in build.items())
    for lock in ("requirements.lock", ".ci/build.lock", ".ci/dev.lock"):
        entries = re.split(r"^(?=[\w.-]+==)", (ROOT / lock).read_text(), flags=re.MULTILINE)[1:]
        assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_wheel_holds_the_four_packages_and_the_licence(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    info = f"ambient_mesh-{PYPROJECT['project']['version']}.dist-info"
    assert {name.partition("/")[0] for name in names} == {*PACKAGES, info}
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert {f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"} <= set(names)
