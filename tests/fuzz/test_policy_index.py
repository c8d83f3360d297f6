"""The index and the reference evaluator give the same verdict, however the index came to hold what it holds."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policy.evaluate import evaluate
from policy.index import PolicyIndex
from policy.model import Authorization, PolicyKey, Scope
from policy.verdict import Unusable
from tests.fuzz.policy_strategies import KEYS, authorizations, connections, destinations

MODES = st.sampled_from(("refuse", "ignore"))
UNIQUE = st.lists(authorizations, max_size=8, unique_by=lambda policy: policy.key)
THOROUGH = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
markings = st.tuples(st.sampled_from(KEYS), st.sampled_from([None, *Scope]), st.just("cause"))


@THOROUGH
@given(
    st.lists(authorizations, max_size=8, unique_by=lambda policy: policy.key),
    destinations,
    st.lists(connections, min_size=1),
    MODES,
)
def test_index_equals_reference(policies, destination, asked, mode):
    index = PolicyIndex(policies, unknown_policy=mode)
    for connection in asked:
        assert index.decide(destination, connection) == evaluate(policies, destination, connection, unknown_policy=mode)


steps = st.lists(
    st.one_of(authorizations, authorizations, markings, st.sampled_from(KEYS), st.tuples(destinations, connections)), max_size=30
)


@THOROUGH
@given(steps, destinations, connections, MODES)
def test_any_history_equals_reference_and_a_fresh_index(steps, destination, connection, mode):
    index = PolicyIndex(unknown_policy=mode)
    policies: dict[str, Authorization] = {}
    unusable: dict[str, tuple] = {}

    def check(destination, connection):
        expected = evaluate(policies.values(), destination, connection, unusable=unusable.values(), unknown_policy=mode)
        assert index.decide(destination, connection) == expected
        return expected

    for step in steps:
        match step:
            case Authorization():
                index.upsert(step)
                unusable.pop(step.key, None)
                policies[step.key] = step
            case (str() as key, scope, cause):
                namespace = key.partition("/")[0]
                index.mark_unusable(PolicyKey(key), scope, namespace, cause)
                policies.pop(key, None)
                unusable[key] = (scope or Scope.GLOBAL, namespace, Unusable(PolicyKey(key), cause))
            case str() as key:
                held = key in policies or key in unusable
                assert index.remove(PolicyKey(key)) is held
                policies.pop(key, None)
                unusable.pop(key, None)
            case (asked, by):
                check(asked, by)
        assert len(index) == len(policies) + len(unusable)
    assert index.policies() == tuple(policies[key] for key in sorted(policies))
    expected = check(destination, connection)
    fresh = PolicyIndex(policies.values(), unknown_policy=mode)
    for scope, namespace, marker in unusable.values():
        fresh.mark_unusable(marker.key, scope, namespace, marker.cause)
    assert fresh.decide(destination, connection) == expected


@settings(max_examples=100, deadline=None)
@given(UNIQUE, st.randoms(use_true_random=False))
def test_removing_everything_leaves_nothing(policies, random):
    index = PolicyIndex(policies)
    keys = [policy.key for policy in policies]
    random.shuffle(keys)
    for key in keys:
        assert index.remove(key)
    empty = PolicyIndex()
    for name in ("_policies", "_unusable", "_by_namespace"):
        assert getattr(index, name) == getattr(empty, name)
    assert len(index._global) == 0
    assert index._global._sets == {}
