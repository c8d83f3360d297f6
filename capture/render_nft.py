"""The rule set in the language of ``nft -f``. Pure; called by the nftables backend and by its unit tests.

Every change is one transaction: nft sends one batch, and the kernel takes all of it or nothing. A table is added (so that
the delete cannot fail), deleted and built anew, which makes applying idempotent whatever was there before. Tables
are of family inet and hold both address families; their names are istio-cni's.
"""

from typing import Final

from capture.model import (
    Accept,
    Address,
    Drop,
    Family,
    Hook,
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
    TableName,
    Target,
    Zone,
)

__all__ = ["GUARD_TABLE", "TABLES", "chain_name", "remove_transaction", "render", "render_guard", "render_rule", "table_name"]

GUARD_TABLE: Final = "istio-ambient-guard"
"""Present: the pod is closed to TCP and UDP, in, out and through."""


def table_name(table: TableName) -> str:
    """The nftables table that stands for one of iptables' built-in ones."""
    return f"istio-ambient-{table}"


def chain_name(hook: Hook) -> str:
    """The regular chain that a base chain jumps to."""
    return f"istio-{hook}"


TABLES: Final = tuple(table_name(table) for table in TableName)


def render(rules: RuleSet) -> str:
    """The transaction that makes the capture tables exactly ``rules``, whatever they were."""
    lines = _drop_tables(TABLES)
    for table in rules.tables:
        name = table_name(table.name)
        lines.append(f"add table inet {name}")
        for chain in table.chains:
            hooked = f"type {chain.kind} hook {chain.hook} priority {chain.priority}; policy accept;"
            lines.append(f"add chain inet {name} {chain.hook} {{ {hooked} }}")
            lines.append(f"add chain inet {name} {chain_name(chain.hook)}")
        for chain in table.chains:
            lines.append(f"add rule inet {name} {chain.hook} counter jump {chain_name(chain.hook)}")
            lines += [f"add rule inet {name} {chain_name(chain.hook)} {render_rule(rule)}" for rule in chain.rules]
    return _text(lines)


def remove_transaction(*tables: str) -> str:
    """The transaction that removes tables, there or not."""
    return _text(_drop_tables(tables))


def render_guard() -> str:
    """The transaction that closes the pod. A drop is final in nftables: no other table can accept what this one drops."""
    lines = [*_drop_tables((GUARD_TABLE,)), f"add table inet {GUARD_TABLE}"]
    for hook in ("input", "forward", "output"):
        lines.append(f"add chain inet {GUARD_TABLE} {hook} {{ type filter hook {hook} priority 0; policy accept; }}")
        lines += [f"add rule inet {GUARD_TABLE} {hook} meta l4proto {protocol} counter drop" for protocol in ("tcp", "udp")]
    return _text(lines)


def render_rule(rule: Rule) -> str:
    """Matches, counter, target."""
    protocol = next((m.name for m in rule.matches if isinstance(m, Protocol)), None)
    has_port = any(isinstance(m, Port) for m in rule.matches)
    parts = []
    if rule.family is not Family.ANY and not any(isinstance(m, Address) for m in rule.matches):
        parts.append(f"meta nfproto ipv{rule.family.value}")
    # "tcp dport" says the protocol as well
    parts += [_match(match, protocol) for match in rule.matches if not (isinstance(match, Protocol) and has_port)]
    return " ".join([*parts, "counter", _target(rule.target)])


def _drop_tables(names: tuple[str, ...]) -> list[str]:
    return [line for name in names for line in (f"add table inet {name}", f"delete table inet {name}")]


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"


def _match(match: Match, protocol: str | None) -> str:
    match match:
        case Interface(side, name, negate):
            return f'{"iifname" if side is Side.SOURCE else "oifname"} {_op(negate)}"{name}"'
        case Protocol(name):
            return f"meta l4proto {name}"
        case Address(side, address, negate):
            header = "ip6" if ":" in address else "ip"
            return f"{header} {'saddr' if side is Side.SOURCE else 'daddr'} {_op(negate)}{address}"
        case Port(side, port, negate):
            return f"{protocol} {'sport' if side is Side.SOURCE else 'dport'} {_op(negate)}{port}"
        case Mark(of, value, mask, negate):
            key = "meta mark" if of is MarkOf.PACKET else "ct mark"
            return f"{key} & {mask:#x} {'!=' if negate else '=='} {value:#x}"


def _op(negate: bool) -> str:
    return "!= " if negate else ""


def _target(target: Target) -> str:
    match target:
        case Accept():
            return "accept"
        case Return():
            return "return"
        case Drop():
            return "drop"
        case Jump(chain):
            return f"jump {chain}"
        case Redirect(port):
            return f"redirect to :{port}"
        case SetConnmark(value, mask):
            return f"ct mark set ct mark & {mask ^ 0xFFFFFFFF:#x} | {value:#x}"
        case RestoreMark():
            return "meta mark set ct mark"
        case Zone(zone):
            return f"ct zone set {zone}"
