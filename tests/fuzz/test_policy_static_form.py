"""No value makes ``parse_static`` raise anything but its own error; what ``to_static`` writes it reads."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from policy.errors import PolicyFormError
from policy.model import Match, StringMatchKind
from policy.static_form import parse_static, to_static
from tests.fuzz.policy_strategies import authorizations

KEYS = ["name", "scope", "action", "rules", "dryRun", "principals", "sourceIps", "destinationPorts", "Exact", "Presence"]
texts = st.one_of(st.text(max_size=8), st.sampled_from(["Global", "Deny", "10.0.0.0/8"]))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.binary(max_size=4), texts)
keys = st.one_of(st.sampled_from(KEYS), st.text(max_size=4), st.integers())


def containers(inner: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=6))


values = st.recursive(scalars, containers, max_leaves=20)


@settings(max_examples=500)
@given(values)
def test_any_value(value):
    with contextlib.suppress(PolicyFormError):
        parse_static(value, "p")


@settings(max_examples=500)
@given(values)
def test_any_value_where_rules_should_be(value):
    whole = {"name": "p", "namespace": "n", "scope": "Global", "action": "Deny", "dryRun": False}
    for rules in (value, [[[value]]], [[[{"principals": value, "sourceIps": value, "destinationPorts": value}]]]):
        with contextlib.suppress(PolicyFormError):
            policy = parse_static(whole | {"rules": rules}, "p")
            assert parse_static(to_static(policy), "p") == policy


def has_empty_string(match: Match) -> bool:
    fields = (match.namespaces, match.not_namespaces, match.principals, match.not_principals)
    return any(value.kind is not StringMatchKind.PRESENCE and not value.value for field in fields for value in field)


@settings(max_examples=300)
@given(authorizations)
def test_written_and_read_again_it_is_the_same(policy):
    written = to_static(policy)
    if any(has_empty_string(match) for rule in policy.rules for clause in rule for match in clause):
        with contextlib.suppress(PolicyFormError):
            assert parse_static(written, "p") == policy
    else:
        assert parse_static(written, "p") == policy
