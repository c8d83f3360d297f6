"""The rule set as jobs for the python-iptables child. Pure but for :func:`run_jobs`; called by the legacy backend.

python-iptables knows only the legacy tables; why it runs in a child, one a family, is told in capture.legacy_child.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import msgspec

from capture.command import Tools
from capture.legacy_child import Job, LegacyChain, LegacyRule, LegacyTable
from capture.model import (
    Accept,
    Address,
    Drop,
    Family,
    Interface,
    Jump,
    Mark,
    MarkOf,
    Port,
    Protocol,
    Redirect,
    RestoreMark,
    Return,
    Rule,
    RuleSet,
    SetConnmark,
    Side,
    TableName,
    Zone,
)
from capture.netns import NetnsRef
from capture.parse_iptables import CHAINS, FamilyState, builtin

__all__ = ["install_job", "legacy_rule", "remove_job", "run_jobs"]


def install_job(rules: RuleSet, state: FamilyState) -> Job:
    """Makes our chains of one family exactly ``rules``; tables that are no longer wanted lose theirs."""
    tables = [
        LegacyTable(
            table.name,
            tuple(
                LegacyChain(CHAINS[chain.hook], builtin(chain.hook), tuple(legacy_rule(r) for r in chain.for_family(state.family)))
                for chain in table.chains
            ),
        )
        for table in rules.tables
    ]
    wanted = {table.name for table in rules.tables}
    tables += [LegacyTable(name, remove=_chains(state, name)) for name in TableName if name in state.tables and name not in wanted]
    return Job(_number(state.family), tuple(tables))


def remove_job(state: FamilyState) -> Job:
    """Removes everything of ours but the guardrail, nat first."""
    order = (TableName.NAT, TableName.MANGLE, TableName.RAW)
    return Job(
        _number(state.family), tuple(LegacyTable(name, remove=_chains(state, name)) for name in order if name in state.tables)
    )


def run_jobs(tools: Tools, netns: NetnsRef, jobs: list[Job]) -> None:
    """Runs a child for each family, side by side: most of a child's time is loading the library (0.2 s and more).

    Raises :class:`~capture.errors.CommandFailedError` with what the first failing one said, after all have ended.
    """
    work = [msgspec.json.encode(job) for job in jobs if job.tables]

    def run(data: bytes) -> None:
        tools.run(netns, tools.python, "-m", "capture.legacy_child", data=data)

    with ThreadPoolExecutor(max_workers=2) as pool:
        for done in [pool.submit(run, data) for data in work]:
            done.result()


def legacy_rule(rule: Rule) -> LegacyRule:
    """One rule in the child's terms."""
    fields: dict[str, str] = {}
    matches: list[tuple[str, str, str]] = []
    protocol = next((m.name for m in rule.matches if isinstance(m, Protocol)), "")
    for match in rule.matches:
        bang = "" if isinstance(match, Protocol) or not match.negate else "!"
        match match:
            case Protocol(name):
                fields["protocol"] = name
            case Interface(side, name, _):
                fields["in_interface" if side is Side.SOURCE else "out_interface"] = bang + name
            case Address(side, address, _):
                fields[side.value] = f"{bang}{address}/{128 if ':' in address else 32}"
            case Port(side, port, _):
                matches.append((protocol, "sport" if side is Side.SOURCE else "dport", f"{bang}{port}"))
            case Mark(of, value, mask, _):
                extension = "mark" if of is MarkOf.PACKET else "connmark"
                matches.append((extension, "mark", f"{bang}{value:#x}/{mask:#x}"))
    target, options = _target(rule)
    return LegacyRule(target=target, options=options, matches=tuple(matches), **fields)


def _target(rule: Rule) -> tuple[str, tuple[tuple[str, str], ...]]:
    match rule.target:
        case Accept():
            return "ACCEPT", ()
        case Return():
            return "RETURN", ()
        case Drop():
            return "DROP", ()
        case Jump(chain):
            return chain, ()
        case Redirect(port):
            return "REDIRECT", (("to-ports", str(port)),)
        case SetConnmark(value, mask):
            return "CONNMARK", (("set-xmark", f"{value:#x}/{mask:#x}"),)
        case RestoreMark():
            return "CONNMARK", (("restore-mark", ""), ("nfmask", "0xffffffff"), ("ctmask", "0xffffffff"))
        case Zone(zone):
            return "CT", (("zone", str(zone)),)


def _chains(state: FamilyState, table: str) -> tuple[str, ...]:
    # Both, whether there or not: the child looks for itself.
    return tuple(CHAINS.values()) if table in state.tables else ()


def _number(family: Family) -> Literal[4, 6]:
    return 4 if family is Family.V4 else 6
