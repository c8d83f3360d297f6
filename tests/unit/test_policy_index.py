"""What the index adds to the evaluator: changes in place, views, and a cost that does not grow."""

import pytest

import policy.index
from policy.compiled import Facts
from policy.index import MAX_VIEWS, PolicyIndex
from policy.model import Action, Authorization, Match, PolicyKey, Scope, StringMatch, StringMatchKind
from policy.ruleset import RuleSet
from policy.verdict import Connection, Destination, Unusable, VerdictReason

CONNECTION = Connection("spiffe://t/ns/shop/sa/web", "10.20.30.40", "10.9.8.7", 8080)
HERE = Destination("shop")


def denying(name: str, *rules, scope=Scope.NAMESPACE, action=Action.DENY) -> Authorization:
    return Authorization(name=name, namespace="shop", scope=scope, action=action, rules=rules)


def reason(index: PolicyIndex, destination: Destination = HERE) -> VerdictReason:
    return index.decide(destination, CONNECTION).reason


def test_upsert_replaces_by_key_and_across_scopes():
    index = PolicyIndex([denying("p", ())])
    assert reason(index) is VerdictReason.DENIED_BY_POLICY
    index.upsert(denying("p"))
    assert reason(index) is VerdictReason.NO_ALLOW_POLICIES
    index.upsert(denying("p", (), scope=Scope.WORKLOAD_SELECTOR))
    assert reason(index) is VerdictReason.NO_ALLOW_POLICIES
    index.upsert(denying("p", (), scope=Scope.GLOBAL))
    assert reason(index) is VerdictReason.DENIED_BY_POLICY
    assert len(index) == 1
    assert index.remove(PolicyKey("shop/p"))
    assert not index.remove(PolicyKey("shop/p"))
    assert reason(index) is VerdictReason.NO_ALLOW_POLICIES
    assert (len(index), index.policies()) == (0, ())


def test_generation_grows_with_every_change_and_only_then():
    index = PolicyIndex()
    policy_ = denying("p", ())
    seen = [index.generation]
    index.upsert(policy_)
    seen.append(index.generation)
    index.mark_unusable(policy_.key, Scope.NAMESPACE, "shop", "bad")
    seen.append(index.generation)
    index.remove(policy_.key)
    seen.append(index.generation)
    assert seen == sorted(set(seen))
    index.remove(policy_.key)
    assert index.generation == seen[-1]
    index.upsert(policy_)
    index.mark_unusable(PolicyKey("shop/q"), Scope.NAMESPACE, "shop", "bad")
    last = index.generation
    index.upsert(denying("p", ()))
    index.mark_unusable(PolicyKey("shop/q"), Scope.NAMESPACE, "shop", "bad")
    index.decide(HERE, CONNECTION)
    assert index.generation == last


def test_an_unusable_policy_takes_the_place_of_the_good_one_and_gives_it_back():
    index = PolicyIndex([denying("p", action=Action.ALLOW), denying("q", (), action=Action.ALLOW)])
    assert reason(index) is VerdictReason.ALLOWED_BY_POLICY
    index.mark_unusable(PolicyKey("shop/q"), Scope.NAMESPACE, "shop", "unknown action 2")
    found = index.decide(HERE, CONNECTION)
    assert (found.reason, found.policy, found.cause) == (VerdictReason.UNUSABLE_POLICY, "shop/q", "unknown action 2")
    assert index.unusable() == (Unusable(PolicyKey("shop/q"), "unknown action 2"),)
    assert PolicyKey("shop/q") in index
    assert len(index) == 2
    assert reason(index, Destination("elsewhere")) is VerdictReason.NO_ALLOW_POLICIES
    index.upsert(denying("q", (), action=Action.ALLOW))
    assert reason(index) is VerdictReason.ALLOWED_BY_POLICY
    assert index.unusable() == ()


def test_an_unknown_scope_may_be_any():
    index = PolicyIndex()
    index.mark_unusable(PolicyKey("shop/q"), None, "shop", "unknown scope 3")
    assert reason(index, Destination("elsewhere")) is VerdictReason.UNUSABLE_POLICY


def test_a_named_policy_is_seen_to_come_change_and_go():
    index = PolicyIndex()
    named = Destination("shop", ("shop/p",))
    assert reason(index, named) is VerdictReason.UNUSABLE_POLICY
    index.upsert(denying("p", scope=Scope.WORKLOAD_SELECTOR))
    assert reason(index, named) is VerdictReason.NO_ALLOW_POLICIES
    index.upsert(denying("p", (), scope=Scope.WORKLOAD_SELECTOR))
    assert reason(index, named) is VerdictReason.DENIED_BY_POLICY
    index.remove(PolicyKey("shop/p"))
    assert reason(index, named) is VerdictReason.UNUSABLE_POLICY
    assert reason(index) is VerdictReason.NO_ALLOW_POLICIES


def test_views_are_bounded():
    index = PolicyIndex([denying("p", (), scope=Scope.WORKLOAD_SELECTOR)])
    for number in range(MAX_VIEWS + 10):
        assert reason(index, Destination(f"n{number}", ("shop/p",))) is VerdictReason.DENIED_BY_POLICY
    assert len(index._views) == MAX_VIEWS
    assert len(index._viewed["shop/p"]) == MAX_VIEWS
    index.remove(PolicyKey("shop/p"))
    assert reason(index, Destination("n0", ("shop/p",))) is VerdictReason.UNUSABLE_POLICY


def test_a_forgotten_view_leaves_no_trace(monkeypatch):
    monkeypatch.setattr(policy.index, "MAX_VIEWS", 1)
    index = PolicyIndex(unknown_policy="ignore")
    reason(index, Destination("a", ("shop/p", "shop/p", "shop/q")))
    reason(index, Destination("a", ("shop/q",)))
    assert index._viewed == {"shop/q": {Destination("a", ("shop/q",))}}


def exact(text: str) -> StringMatch:
    return StringMatch(StringMatchKind.EXACT, text)


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(lambda n: ((Match(principals=(exact(f"t/ns/n{n}/sa/web"),)),),), id="principal"),
        pytest.param(
            lambda n: ((Match(principals=(StringMatch(StringMatchKind.PREFIX, f"t/ns/n{n}/"),)),),), id="principal prefix"
        ),
        pytest.param(lambda n: ((Match(namespaces=(StringMatch(StringMatchKind.SUFFIX, f"-{n}"),)),),), id="namespace suffix"),
        pytest.param(lambda n: ((Match(source_ips=(f"10.{n >> 8}.{n & 255}.0/24",)),),), id="source"),
        pytest.param(lambda n: ((Match(destination_ips=(f"fd00::{n:x}/128",)),),), id="destination"),
        pytest.param(lambda n: ((Match(destination_ports=(9000 + n,)),),), id="port"),
        pytest.param(
            lambda n: (
                (
                    Match(
                        not_principals=(StringMatch(StringMatchKind.PRESENCE), exact(f"{n}")),
                    ),
                ),
            ),
            id="plaintext",
        ),
        pytest.param(lambda n: ((Match(namespaces=(exact("shop"),), destination_ports=(9000 + n,)),),), id="shared field"),
        pytest.param(
            lambda n: ((Match(namespaces=(exact("shop"),)),), (Match(destination_ports=(9000 + n,)),)), id="shared clause"
        ),
        pytest.param(
            lambda n: ((Match(destination_ports=(9000 + n,)), Match(source_ips=(f"11.0.{n >> 8}.{n & 255}/32",))),), id="either"
        ),
        pytest.param(lambda _: ((Match(not_namespaces=(exact("shop"),)),),), id="repeated exclusion"),
        pytest.param(lambda n: ((Match(not_destination_ports=(n + 1,)),), (Match(),)), id="dead"),
    ],
)
def test_few_rules_are_looked_at_of_many(rule):
    rules = RuleSet()
    for number in range(2000):
        rules.add(denying(f"p{number}", rule(number)))
    facts = Facts(CONNECTION)
    assert sum(map(len, rules._candidates(facts))) <= 2
    assert rules.first(facts) is None


def test_rules_of_equal_content_name_the_lowest_owner():
    rules = RuleSet()
    for name in ("c", "a", "b"):
        rules.add(denying(name, ((Match(destination_ports=(1,)),),), ()))
    facts = Facts(CONNECTION)
    assert rules.first(facts) == ("shop/a", 1)
    assert rules.all(facts) == {"shop/a": 1, "shop/b": 1, "shop/c": 1}
    rules.remove(PolicyKey("shop/a"))
    assert rules.first(facts) == ("shop/b", 1)
    assert rules.lowest() == "shop/b"
