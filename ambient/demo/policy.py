"""Changes the policy of a lab: ``python -m ambient.demo.policy STATE (--deny NS/SA | --allow-only NS/SA | --none)``.

Replaces the policies of a state file by one for the whole namespace NS, or by none. The file is put in place in one move, and the
proxies that follow it look at it ten times a second.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

__all__ = ["apply", "main", "one_policy"]

TRUST_DOMAIN: Final = "cluster.local"


def one_policy(action: str, account: str) -> dict[str, Any]:
    """The static form of a policy about one service account, for every workload of its namespace.

    ``action`` is Deny or Allow, ``account`` NAMESPACE/SERVICE-ACCOUNT. Raises ValueError.
    """
    namespace, slash, name = account.partition("/")
    if not (namespace and slash and name) or "/" in name:
        raise ValueError(f"{account!r} is not of the form NAMESPACE/SERVICE-ACCOUNT, such as shop/intruder")
    return {
        "name": f"{'deny' if action == 'Deny' else 'allow-only'}-{name}",
        "namespace": namespace,
        "scope": "Namespace",
        "action": action,
        "dryRun": False,
        "rules": [[[{"principals": [{"Exact": f"{TRUST_DOMAIN}/ns/{namespace}/sa/{name}"}]}]]],
    }


def apply(path: Path, policies: list[dict[str, Any]]) -> None:
    """Replace the file's policies. Raises OSError, ValueError."""
    state = json.loads(path.read_text())
    state["policies"] = policies
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(state, indent=1))
    temporary.replace(path)


def main(words: list[str]) -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(prog="python -m ambient.demo.policy", description="Change the policy of a demo's lab.")
    parser.add_argument("state", type=Path)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--deny", metavar="NS/SA", help="refuse this service account")
    choice.add_argument("--allow-only", metavar="NS/SA", help="refuse everybody else")
    choice.add_argument("--none", action="store_true", help="no policy: everything is allowed")
    asked = parser.parse_args(words)
    try:
        policies = []
        if asked.deny:
            policies = [one_policy("Deny", asked.deny)]
        elif asked.allow_only:
            policies = [one_policy("Allow", asked.allow_only)]
        apply(asked.state, policies)
    except (OSError, ValueError) as error:
        print(f"the policy is not changed: {error}", file=sys.stderr)  # noqa: T201
        return 1
    for policy in policies:
        who = policy["rules"][0][0][0]["principals"][0]["Exact"]
        what = (
            f"{policy['namespace']}/{policy['name']}: {policy['action']} {who} to every workload of namespace {policy['namespace']}"
        )
        print(what)  # noqa: T201
    if not policies:
        print("no policy")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
