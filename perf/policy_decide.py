"""How long a policy decision takes, and how that grows with the number of policies.

``python perf/policy_decide.py [--json FILE]`` prints microseconds for one decision at 10 to 10 000 policies of ten rules each,
best of several runs, for sets of policies that are easy and for sets that are made to be hard.
"""

# ruff: noqa: T201  (a report is what this program is for)

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from policy.index import PolicyIndex
from policy.model import Action, Authorization, Match, Rule, Scope, ServiceAccountMatch, StringMatch, StringMatchKind
from policy.verdict import Connection, Destination

SIZES = (10, 100, 1_000, 10_000)
RULES = 10
PREFIX, EXACT = StringMatchKind.PREFIX, StringMatchKind.EXACT
CONNECTION = Connection("spiffe://cluster.local/ns/shop/sa/web", "10.20.30.40", "10.9.8.7", 8080)
ANONYMOUS = Connection(None, "10.20.30.40", "10.9.8.7", 8080)


def principals(number: int) -> Rule:
    return ((Match(principals=(StringMatch(EXACT, f"cluster.local/ns/n{number}/sa/a"),)),),)


def ranges(number: int) -> Rule:
    return ((Match(source_ips=(f"{11 + number % 80}.{number // 80 % 256}.{number // 20480 % 256}.0/24",)),),)


def prefixes(number: int) -> Rule:
    return ((Match(namespaces=(StringMatch(PREFIX, f"team-{number}-"),)),),)


def same_namespace(number: int) -> Rule:
    """All rules share a condition that holds; they differ by what comes after it."""
    name = StringMatch(EXACT, "shop")
    return (
        (Match(destination_ports=(9000 + number % 50_000,)),),
        (Match(namespaces=(name,), source_ips=(f"10.20.{number % 200}.0/30",)),),
    )


def mixed(number: int) -> Rule:
    account = ServiceAccountMatch(f"n{number}", "a")
    kinds = (principals, ranges, prefixes, same_namespace)
    return ((Match(service_accounts=(account,)),),) if number % 5 == 4 else kinds[number % 5](number)


def repeated(_: int) -> Rule:
    """Every policy says the same, and nothing that an index could use."""
    return ((Match(not_namespaces=(StringMatch(EXACT, "shop"),)),),)


def negative(number: int) -> Rule:
    """The worst: distinct rules with nothing but exclusions. This one is a scan and is meant to show it."""
    return ((Match(not_namespaces=(StringMatch(EXACT, "shop"), StringMatch(EXACT, f"n{number}"))),),)


def policies(count: int, rule: Callable[[int], Rule], scope: Scope) -> list[Authorization]:
    return [
        Authorization(
            name=f"p{number:05}",
            namespace="shop",
            scope=scope,
            action=Action.DENY,
            rules=tuple(rule(number * RULES + index) for index in range(RULES)),
        )
        for number in range(count)
    ]


def microseconds(call: Callable[[], object], *, budget: float = 0.25) -> float:
    """Time of one call: best of runs of at least a millisecond each, within about ``budget`` seconds."""
    call()
    repeat, best, end = 1, float("inf"), time.perf_counter() + budget
    while time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(repeat):
            call()
        spent = time.perf_counter() - start
        best = min(best, spent / repeat)
        if spent < 0.001:
            repeat *= 2
    return best * 1e6


def measure(rule: Callable[[int], Rule], scope: Scope, sizes: Iterable[int]) -> list[dict[str, float]]:
    rows = []
    for size in sizes:
        given = policies(size, rule, scope)
        start = time.perf_counter()
        index = PolicyIndex(given)
        compiled = time.perf_counter() - start
        names = tuple(policy.key for policy in given) if scope is Scope.WORKLOAD_SELECTOR else ()
        destination = Destination("shop", names)
        changed = given[size // 2]

        def upsert(index: PolicyIndex = index, changed: Authorization = changed) -> None:
            index.remove(changed.key)
            index.upsert(changed)

        decide = microseconds(lambda index=index, destination=destination: index.decide(destination, CONNECTION))  # type: ignore[misc]
        plain = microseconds(lambda index=index, destination=destination: index.decide(destination, ANONYMOUS))  # type: ignore[misc]
        rows.append(
            {
                "policies": size,
                "decide_us": decide,
                "plain_us": plain,
                "compile_ms": compiled * 1e3,
                "replace_us": microseconds(upsert),
            }
        )
    return rows


CASES: tuple[tuple[str, Callable[[int], Rule], Scope], ...] = (
    ("mixed, namespace", mixed, Scope.NAMESPACE),
    ("mixed, named by one workload", mixed, Scope.WORKLOAD_SELECTOR),
    ("principals", principals, Scope.NAMESPACE),
    ("source ranges", ranges, Scope.NAMESPACE),
    ("namespace prefixes", prefixes, Scope.NAMESPACE),
    ("shared condition", same_namespace, Scope.NAMESPACE),
    ("repeated", repeated, Scope.NAMESPACE),
    ("exclusions only (a scan)", negative, Scope.NAMESPACE),
)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options = parser.parse_args(arguments)
    report = {}
    print(f"DENY policies x {RULES} rules, none matching; times of one call")
    print(f"{'case':32}{'policies':>9}{'decide us':>11}{'plain us':>10}{'replace us':>12}{'compile ms':>12}")
    for name, rule, scope in CASES:
        report[name] = measure(rule, scope, options.sizes)
        for row in report[name]:
            figures = f"{row['decide_us']:11.2f}{row['plain_us']:10.2f}{row['replace_us']:12.1f}{row['compile_ms']:12.1f}"
            print(f"{name:32}{row['policies']:9}{figures}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
