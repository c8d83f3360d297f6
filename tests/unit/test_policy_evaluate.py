"""Each line of the L4 semantics, asked of the reference evaluator and of the index alike."""

import pytest

from policy.errors import MalformedConnectionError
from policy.evaluate import UNKNOWN_POLICY, evaluate
from policy.index import PolicyIndex
from policy.model import Action, Authorization, Match, Scope, ServiceAccountMatch, StringMatch, StringMatchKind
from policy.verdict import Connection, Destination, DryRun, Unusable, Verdict, VerdictReason

HERE = Destination("shop")
WEB = Connection("spiffe://cluster.local/ns/front/sa/web", "10.1.0.5", "10.2.0.7", 8080)
PLAIN = Connection(None, "10.1.0.5", "10.2.0.7", 8080)
SIX = Connection(None, "fd00::5", "fd00::7", 8080)

PRESENT = StringMatch(StringMatchKind.PRESENCE)


def exact(text: str) -> StringMatch:
    return StringMatch(StringMatchKind.EXACT, text)


def prefix(text: str) -> StringMatch:
    return StringMatch(StringMatchKind.PREFIX, text)


def suffix(text: str) -> StringMatch:
    return StringMatch(StringMatchKind.SUFFIX, text)


def policy(*rules, action=Action.DENY, name="p", namespace="shop", scope=Scope.NAMESPACE, dry_run=False) -> Authorization:
    return Authorization(name=name, namespace=namespace, scope=scope, action=action, rules=rules, dry_run=dry_run)


def verdict(policies, connection=WEB, destination=HERE, *, unusable=(), unknown_policy="refuse") -> Verdict:
    index = PolicyIndex(policies, unknown_policy=unknown_policy)
    for scope, namespace, marker in unusable:
        index.mark_unusable(marker.key, scope, namespace, marker.cause)
    found = evaluate(policies, destination, connection, unusable=unusable, unknown_policy=unknown_policy)
    assert index.decide(destination, connection) == found
    return found


def matches(*rules, connection=WEB) -> bool:
    return verdict([policy(*rules)], connection).reason is VerdictReason.DENIED_BY_POLICY


ANY: tuple = ()
PORT = Match(destination_ports=(8080,))
OTHER_PORT = Match(destination_ports=(9090,))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param((), False, id="no rules never matches"),
        pytest.param((ANY,), True, id="a rule without clauses is true"),
        pytest.param((((),),), True, id="a clause without matches is true"),
        pytest.param((((Match(),),),), False, id="an empty match is skipped"),
        pytest.param((((Match(), PORT),),), True, id="an empty match beside another is skipped"),
        pytest.param((((PORT,), (Match(),)),), False, id="a clause of empty matches is false"),
        pytest.param((((PORT,), ()),), True, id="a true clause beside a clause without matches"),
        pytest.param((((OTHER_PORT,),), ((PORT,),)), True, id="OR over rules"),
        pytest.param((((PORT,), (OTHER_PORT,)),), False, id="AND over clauses"),
        pytest.param((((OTHER_PORT, PORT),),), True, id="OR over matches"),
        pytest.param((((Match(destination_ports=(8080,), namespaces=(exact("x"),)),),),), False, id="AND over fields"),
        pytest.param((((Match(destination_ports=(1, 8080)),),),), True, id="OR over values"),
        pytest.param((((Match(not_destination_ports=(1, 8080)),),),), False, id="not: none may match"),
        pytest.param((((Match(namespaces=(prefix("f"),), not_namespaces=(exact("front"),)),),),), False, id="both must hold"),
        pytest.param((((Match(namespaces=(prefix("f"),), not_namespaces=(exact("x"),)),),),), True, id="both hold"),
    ],
)
def test_boolean_structure(rules, expected):
    assert matches(*rules) is expected


@pytest.mark.parametrize(
    ("match", "web", "plain"),
    [
        (Match(principals=(exact("cluster.local/ns/front/sa/web"),)), True, False),
        (Match(principals=(exact("spiffe://cluster.local/ns/front/sa/web"),)), False, False),
        (Match(principals=(exact("Cluster.local/ns/front/sa/web"),)), False, False),
        (Match(principals=(prefix("cluster.local/ns/front/"),)), True, False),
        (Match(principals=(suffix("/sa/web"),)), True, False),
        (Match(principals=(prefix(""),)), True, False),
        (Match(principals=(suffix(""),)), True, False),
        (Match(principals=(prefix("cluster.local/ns/front/sa/web-longer"),)), False, False),
        (Match(principals=(suffix("x/cluster.local/ns/front/sa/web"),)), False, False),
        (Match(principals=(PRESENT,)), True, False),
        (Match(not_principals=(PRESENT,)), False, True),
        (Match(not_principals=(prefix(""),)), False, True),
        (Match(not_principals=(exact("cluster.local/ns/front/sa/web"),)), False, True),
        (Match(not_principals=(exact("cluster.local/ns/front/sa/other"),)), True, True),
        (Match(namespaces=(exact("front"),)), True, False),
        (Match(namespaces=(exact(""),)), False, True),
        (Match(namespaces=(prefix(""),)), True, True),
        (Match(namespaces=(prefix("fr"),)), True, False),
        (Match(namespaces=(suffix("nt"),)), True, False),
        (Match(namespaces=(PRESENT,)), True, False),
        (Match(not_namespaces=(exact("front"),)), False, True),
        (Match(not_namespaces=(exact("x"),)), True, True),
        (Match(not_namespaces=(PRESENT,)), False, True),
        (Match(service_accounts=(ServiceAccountMatch("front", "web"),)), True, False),
        (Match(service_accounts=(ServiceAccountMatch("front", "we"),)), False, False),
        (Match(not_service_accounts=(ServiceAccountMatch("front", "web"),)), False, True),
        (Match(source_ips=("10.1.0.0/16",)), True, True),
        (Match(source_ips=("10.2.0.0/16",)), False, False),
        (Match(source_ips=("::/0",)), False, False),
        (Match(not_source_ips=("10.1.0.0/16",)), False, False),
        (Match(not_source_ips=("10.2.0.0/16", "::/0")), True, True),
        (Match(destination_ips=("10.2.0.7/32",)), True, True),
        (Match(destination_ips=("10.2.0.6/32",)), False, False),
        (Match(not_destination_ips=("10.2.0.6/31",)), False, False),
        (Match(destination_ports=(8080,)), True, True),
        (Match(not_destination_ports=(8080,)), False, False),
    ],
)
def test_fields(match, web, plain):
    assert matches(((match,),), connection=WEB) is web
    assert matches(((match,),), connection=PLAIN) is plain


def test_service_accounts_ignore_the_trust_domain():
    foreign = Connection("spiffe://elsewhere/ns/front/sa/web", "10.1.0.5", "10.2.0.7", 8080)
    assert matches(((Match(service_accounts=(ServiceAccountMatch("front", "web"),)),),), connection=foreign)


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [(("fd00::/8",), True), (("::/0",), True), (("0.0.0.0/0",), False), (("fd00::5/128",), True), (("fe00::/8",), False)],
)
def test_ipv6(ranges, expected):
    assert matches(((Match(source_ips=ranges),),), connection=SIX) is expected


def test_a_mapped_address_is_ipv4():
    mapped = Connection(None, "::ffff:10.1.0.5", "::ffff:a02:7", 8080)
    assert matches(((Match(source_ips=("10.1.0.5/32",), destination_ips=("10.2.0.7/32",)),),), connection=mapped)
    assert not matches(((Match(source_ips=("::/0",)),),), connection=mapped)


ALL = (ANY,)


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ([], Verdict(True, VerdictReason.NO_ALLOW_POLICIES)),
        ([policy()], Verdict(True, VerdictReason.NO_ALLOW_POLICIES)),
        ([policy(action=Action.ALLOW)], Verdict(False, VerdictReason.NOT_ALLOWED)),
        ([policy(*ALL, action=Action.ALLOW)], Verdict(True, VerdictReason.ALLOWED_BY_POLICY, "shop/p", 0)),
        (
            [policy(*ALL, action=Action.ALLOW, name="a"), policy(((OTHER_PORT,),), ANY, ANY, name="d")],
            Verdict(False, VerdictReason.DENIED_BY_POLICY, "shop/d", 1),
        ),
        (
            [policy(*ALL, name="b"), policy(((OTHER_PORT,),), ANY, name="a")],
            Verdict(False, VerdictReason.DENIED_BY_POLICY, "shop/a", 1),
        ),
        (
            [policy(((OTHER_PORT,),), action=Action.ALLOW, name="a"), policy(*ALL, action=Action.ALLOW, name="b")],
            Verdict(True, VerdictReason.ALLOWED_BY_POLICY, "shop/b", 0),
        ),
    ],
)
def test_decision(policies, expected):
    assert verdict(policies) == expected
    assert verdict(policies[::-1]) == expected


@pytest.mark.parametrize(
    ("scope", "namespace", "named", "expected"),
    [
        (Scope.GLOBAL, "istio-system", (), True),
        (Scope.NAMESPACE, "shop", (), True),
        (Scope.NAMESPACE, "other", (), False),
        (Scope.NAMESPACE, "other", ("other/p",), True),
        (Scope.WORKLOAD_SELECTOR, "shop", (), False),
        (Scope.WORKLOAD_SELECTOR, "shop", ("shop/p",), True),
        (Scope.WORKLOAD_SELECTOR, "istio-system", ("istio-system/p", "istio-system/p"), True),
    ],
)
def test_whom_a_policy_applies_to(scope, namespace, named, expected):
    one = policy(*ALL, scope=scope, namespace=namespace)
    destination = Destination("shop", named)
    assert (verdict([one], destination=destination).reason is VerdictReason.DENIED_BY_POLICY) is expected
    index = PolicyIndex([one])
    assert index.affects(one.key, destination) is expected
    assert index.applying(destination) == ((one.key,) if expected else ())
    marker = Unusable(one.key, "bad")
    found = verdict([], destination=destination, unusable=[(scope, namespace, marker)])
    assert (found == Verdict(False, VerdictReason.UNUSABLE_POLICY, one.key, cause="bad")) is expected


def test_a_name_that_nobody_knows_refuses():
    destination = Destination("shop", ("shop/gone", "shop/a"))
    found = verdict([policy(*ALL, action=Action.ALLOW)], destination=destination)
    assert found == Verdict(False, VerdictReason.UNUSABLE_POLICY, "shop/a", cause=UNKNOWN_POLICY)


def test_a_name_that_nobody_knows_may_be_ignored():
    destination = Destination("shop", ("shop/gone",))
    assert verdict([], destination=destination, unknown_policy="ignore") == Verdict(True, VerdictReason.NO_ALLOW_POLICIES)


def test_a_deny_that_matches_is_named_before_what_is_unusable():
    unusable = [(Scope.GLOBAL, "istio-system", Unusable("istio-system/u", "bad"))]
    assert verdict([policy(*ALL)], unusable=unusable).reason is VerdictReason.DENIED_BY_POLICY
    assert verdict([policy(*ALL, action=Action.ALLOW)], unusable=unusable).reason is VerdictReason.UNUSABLE_POLICY


def test_dry_run_is_reported_and_never_enforced():
    found = verdict(
        [
            policy(((OTHER_PORT,),), ANY, name="d", dry_run=True),
            policy(((OTHER_PORT,),), name="e", dry_run=True),
            policy(name="z", action=Action.ALLOW, dry_run=True),
            policy(name="y", action=Action.ALLOW, dry_run=True),
        ]
    )
    assert found == Verdict(
        True,
        VerdictReason.NO_ALLOW_POLICIES,
        dry_run=(DryRun("shop/d", Action.DENY, True, 1), DryRun("shop/y", Action.ALLOW, False)),
    )


def test_dry_run_allow_that_matches():
    found = verdict([policy(*ALL, name="z", action=Action.ALLOW, dry_run=True), policy(*ALL)])
    assert not found.allowed
    assert found.dry_run == (DryRun("shop/z", Action.ALLOW, True, 0),)


@pytest.mark.parametrize(
    "connection",
    [
        Connection("cluster.local/ns/a/sa/b", "10.0.0.1", "10.0.0.2", 1),
        Connection("spiffe://cluster.local/ns/a", "10.0.0.1", "10.0.0.2", 1),
        Connection("spiffe://cluster.local/ns//sa/b", "10.0.0.1", "10.0.0.2", 1),
        Connection("", "10.0.0.1", "10.0.0.2", 1),
        Connection(None, "", "10.0.0.2", 1),
        Connection(None, "10.0.0.1", "10.0.0.2.3", 1),
    ],
)
def test_a_connection_that_is_none(connection):
    policies = [policy(*ALL)]
    with pytest.raises(MalformedConnectionError):
        evaluate(policies, HERE, connection)
    with pytest.raises(MalformedConnectionError):
        PolicyIndex(policies).decide(HERE, connection)
