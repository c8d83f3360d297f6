"""The rule set in the language of ``iptables-restore --noflush``, one text a family. Pure.

Called by the iptables backends and their unit tests. A table's text is committed as one transaction. Naming a chain of
ours (``:ISTIO_PRERT``) makes it or empties it; everything else in the table stays. A jump that is right already stays
where it is: appended anew, it could land behind somebody's later rule that accepts everything.
"""

from capture.model import (
    Accept,
    Address,
    Chain,
    Drop,
    Family,
    Interface,
    Jump,
    Mark,
    MarkOf,
    Match,
    Port,
    Protocol,
    Redirect,
    RestoreMark,
    Return,
    Rule,
    RuleSet,
    SetConnmark,
    Side,
    Table,
    TableName,
    Target,
    Zone,
)
from capture.parse_iptables import CHAINS, GUARD_CHAIN, FamilyState, TableState, builtin

__all__ = ["render", "render_guard", "render_remove", "render_rule", "render_unguard"]

_NOTHING = TableState()


def render(rules: RuleSet, state: FamilyState) -> str:
    """Makes our chains of one family exactly ``rules``, given what is there. Empty when no table is concerned."""
    wanted = {table.name: table for table in rules.tables}
    parts = []
    for name in TableName:
        there = state.tables.get(name, _NOTHING)
        if name in wanted:
            parts.append(_build(wanted[name], there, state.family))
        elif there is not _NOTHING:
            parts.append(_remove(name, there))
    return "".join(parts)


def render_remove(state: FamilyState) -> str:
    """Removes our chains and the jumps to them, nat first: without it nothing is captured, whatever the others do."""
    order = (TableName.NAT, TableName.MANGLE, TableName.RAW)
    return "".join(_remove(name, state.tables[name]) for name in order if name in state.tables)


def render_guard(state: FamilyState) -> str:
    """Closes the pod: TCP and UDP are dropped before any other rule of table filter is looked at."""
    lines = [f":{GUARD_CHAIN} - [0:0]", *_unjump(state.tables.get("filter", _NOTHING))]
    lines += [f"-A {GUARD_CHAIN} -p {protocol} -j DROP" for protocol in ("tcp", "udp")]
    lines += [f"-I {chain} 1 -j {GUARD_CHAIN}" for chain in ("INPUT", "FORWARD", "OUTPUT")]
    return _transaction("filter", lines)


def render_unguard(state: FamilyState) -> str:
    """Opens the pod again. Empty when it is open."""
    there = state.tables.get("filter")
    return "" if there is None else _remove("filter", there)


def render_rule(rule: Rule) -> str:
    """Matches and target, as after ``-A CHAIN``."""
    protocol = next((m.name for m in rule.matches if isinstance(m, Protocol)), None)
    return " ".join([*(_match(match, protocol) for match in rule.matches), "-j", _target(rule.target)])


def _build(table: Table, there: TableState, family: Family) -> str:
    hooks = {CHAINS[chain.hook]: chain for chain in table.chains}
    stale = [name for name in there.chains if name not in hooks]
    lines = [f":{name} - [0:0]" for name in hooks]
    kept = _right_jumps(there, table.chains)
    lines += _unjump(there, keep=kept)
    for name, chain in hooks.items():
        jump = f"-A {builtin(chain.hook)} -j {name}"
        if jump not in kept:
            lines.append(jump)
        lines += [f"-A {name} {render_rule(rule)}" for rule in chain.for_family(family)]
    lines += [f"{flag} {name}" for flag in ("-F", "-X") for name in stale]
    return _transaction(table.name, lines)


def _right_jumps(there: TableState, chains: tuple[Chain, ...]) -> list[str]:
    wanted = [f"-A {builtin(chain.hook)} -j {CHAINS[chain.hook]}" for chain in chains]
    return [jump for jump in wanted if there.jumps.count(jump) == 1]


def _remove(name: str, there: TableState) -> str:
    lines = _unjump(there)
    lines += [f"{flag} {chain}" for flag in ("-F", "-X") for chain in there.chains]
    return _transaction(name, lines)


def _unjump(there: TableState, keep: list[str] | None = None) -> list[str]:
    return [f"-D{jump[2:]}" for jump in there.jumps if jump not in (keep or ())]


def _transaction(table: str, lines: list[str]) -> str:
    return "\n".join([f"*{table}", *lines, "COMMIT", ""])


def _match(match: Match, protocol: str | None) -> str:
    match match:
        case Interface(side, name, negate):
            return f"{_not(negate)}{'-i' if side is Side.SOURCE else '-o'} {name}"
        case Protocol(name):
            return f"-p {name}"
        case Address(side, address, negate):
            return f"{_not(negate)}{'-s' if side is Side.SOURCE else '-d'} {address}/{128 if ':' in address else 32}"
        case Port(side, port, negate):
            return f"-m {protocol} {_not(negate)}{'--sport' if side is Side.SOURCE else '--dport'} {port}"
        case Mark(of, value, mask, negate):
            module = "mark" if of is MarkOf.PACKET else "connmark"
            return f"-m {module} {_not(negate)}--mark {value:#x}/{mask:#x}"


def _not(negate: bool) -> str:
    return "! " if negate else ""


def _target(target: Target) -> str:
    match target:
        case Accept():
            return "ACCEPT"
        case Return():
            return "RETURN"
        case Drop():
            return "DROP"
        case Jump(chain):
            return chain
        case Redirect(port):
            return f"REDIRECT --to-ports {port}"
        case SetConnmark(value, mask):
            return f"CONNMARK --set-xmark {value:#x}/{mask:#x}"
        case RestoreMark():
            return "CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff"
        case Zone(zone):
            return f"CT --zone {zone}"
