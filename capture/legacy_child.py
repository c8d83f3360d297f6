"""``python -m capture.legacy_child``: writes the legacy tables of one family with python-iptables. Started by capture.legacy.

A process of its own because libiptc keeps global state: a process can use REDIRECT for IPv4 or for IPv6, not both, and its
table handles stay with the netns that they were opened in. It reads a :class:`Job` as JSON from stdin, changes the tables in
the order given, each in one commit, and prints nothing. Any failure ends it with status 1 and a sentence on stderr.
"""

import fcntl
import os
import sys
from typing import Any, Final, Literal

import msgspec

__all__ = ["Job", "LegacyChain", "LegacyRule", "LegacyTable"]

MAX_JOB: Final = 1 << 20


class LegacyRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule in python-iptables' terms. ``matches`` and ``options``: (extension or option, value); "!" before a value negates."""

    target: str
    options: tuple[tuple[str, str], ...] = ()
    matches: tuple[tuple[str, str, str], ...] = ()
    protocol: str = ""
    source: str = ""
    destination: str = ""
    in_interface: str = ""
    out_interface: str = ""


class LegacyChain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A chain of ours: emptied or made, filled, and jumped to from ``builtin`` exactly once, at the end when it wasn't yet."""

    name: str
    builtin: str
    rules: tuple[LegacyRule, ...]


class LegacyTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What becomes of one table. ``remove``: chains of ours to take away with all jumps to them."""

    name: str
    chains: tuple[LegacyChain, ...] = ()
    remove: tuple[str, ...] = ()


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    family: Literal[4, 6]
    tables: tuple[LegacyTable, ...]


def main() -> int:
    """The child's whole life; the exit status."""
    try:
        job = msgspec.json.decode(sys.stdin.buffer.read(MAX_JOB), type=Job)
    except msgspec.DecodeError as error:
        return _fail(f"the job is not valid: {error}")
    try:
        import iptc
    except Exception as error:  # noqa: BLE001 - the library raises bare Exception when libip4tc or libxtables is not there
        return _fail(f"python-iptables cannot be loaded: {error}; install python-iptables and the package iptables")
    with open(os.environ["XTABLES_LOCKFILE"], "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for table in job.tables:
            try:
                _change(iptc, job.family, table)
            except Exception as error:  # noqa: BLE001 - translated: the library's errors have no common root
                return _fail(f"IPv{job.family} table {table.name}: {error or type(error).__name__}")
    return 0


def _change(iptc: Any, family: int, wanted: LegacyTable) -> None:
    table = (iptc.Table if family == 4 else iptc.Table6)(wanted.name)
    table.autocommit = False
    table.refresh()
    for chain in wanted.chains:
        ours = iptc.Chain(table, chain.name)
        if table.is_chain(chain.name):
            ours.flush()
        else:
            table.create_chain(chain.name)
        for rule in chain.rules:
            ours.append_rule(_rule(iptc, family, rule))
        jump = _rule(iptc, family, LegacyRule(target=chain.name))
        where = iptc.Chain(table, chain.builtin)
        if not _keep_one_jump(table, chain.name, where, jump):
            where.append_rule(jump)
    for name in wanted.remove:
        _keep_one_jump(table, name, None, None)
        if table.is_chain(name):
            table.flush_entries(name)
            table.delete_chain(name)
    table.commit()


def _keep_one_jump(table: Any, name: str, where: Any, jump: Any) -> bool:
    """Removes the jumps to a chain from the whole table, but the first plain one in ``where``. Whether that is there."""
    kept = False
    for chain in table.chains:
        for rule in chain.rules:
            if rule.target is None or rule.target.name != name:
                continue
            if where is not None and not kept and chain.name == where.name and rule == jump:
                kept = True
            else:
                chain.delete_rule(rule)
    return kept


def _rule(iptc: Any, family: int, data: LegacyRule) -> Any:
    rule = (iptc.Rule if family == 4 else iptc.Rule6)()
    for name, value in (("protocol", data.protocol), ("src", data.source), ("dst", data.destination)):
        if value:
            setattr(rule, name, value)
    for name, value in (("in_interface", data.in_interface), ("out_interface", data.out_interface)):
        if value:
            setattr(rule, name, value)
    made: dict[str, Any] = {}
    for extension, option, value in data.matches:
        if extension not in made:
            made[extension] = rule.create_match(extension)
        made[extension].set_parameter(option, value)
    target = rule.create_target(data.target)
    for option, value in data.options:
        target.set_parameter(option, value or None)
    return rule


def _fail(sentence: str) -> int:
    sys.stderr.write(f"{sentence}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
