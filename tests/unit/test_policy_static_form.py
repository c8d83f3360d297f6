"""The static file's policy form: what it means, and every way of being wrong with its path."""

import pytest
import yaml

from policy.errors import PolicyFormError
from policy.model import Action, Authorization, Match, Scope, ServiceAccountMatch, StringMatch, StringMatchKind
from policy.static_form import MAX_PROBLEMS, parse_static, to_static

WHOLE = """
name: deny-web
namespace: shop
scope: WorkloadSelector
action: Deny
dryRun: false
rules:
- - - namespaces: [{Exact: a}, {Prefix: b}]
      notNamespaces: [{Suffix: c}]
      principals: [{Presence: []}]
      notPrincipals: [{Exact: cluster.local/ns/a/sa/b}]
      serviceAccounts: [{namespace: a, serviceAccount: b}]
      notServiceAccounts: [{namespace: a, serviceAccount: c}]
      sourceIps: [10.1.2.3/8, "fd00::1/64"]
      notSourceIps: ["::ffff:10.0.0.0/104"]
      destinationIps: [10.0.0.1/32]
      notDestinationIps: [0.0.0.0/0]
      destinationPorts: [80, 65535]
      notDestinationPorts: [1]
  - []
- []
"""
MATCH = Match(
    namespaces=(StringMatch(StringMatchKind.EXACT, "a"), StringMatch(StringMatchKind.PREFIX, "b")),
    not_namespaces=(StringMatch(StringMatchKind.SUFFIX, "c"),),
    principals=(StringMatch(StringMatchKind.PRESENCE),),
    not_principals=(StringMatch(StringMatchKind.EXACT, "cluster.local/ns/a/sa/b"),),
    service_accounts=(ServiceAccountMatch("a", "b"),),
    not_service_accounts=(ServiceAccountMatch("a", "c"),),
    source_ips=("10.0.0.0/8", "fd00::/64"),
    not_source_ips=("10.0.0.0/8",),
    destination_ips=("10.0.0.1/32",),
    not_destination_ips=("0.0.0.0/0",),
    destination_ports=(80, 65535),
    not_destination_ports=(1,),
)


def minimal(**changes: object) -> dict[str, object]:
    return {"name": "p", "namespace": "n", "scope": "Global", "action": "Allow", "dryRun": False} | changes


def problems_of(value: object) -> list[tuple[str, str]]:
    with pytest.raises(PolicyFormError) as caught:
        parse_static(value, "policies[3]")
    return list(caught.value.problems)


def test_a_policy_that_uses_everything():
    assert parse_static(yaml.safe_load(WHOLE), "policies[0]") == Authorization(
        name="deny-web",
        namespace="shop",
        scope=Scope.WORKLOAD_SELECTOR,
        action=Action.DENY,
        rules=(((MATCH,), ()), ()),
    )


def test_rules_may_be_absent_and_dry_run_may_be_true():
    assert parse_static(minimal(dryRun=True), "p") == Authorization(
        name="p", namespace="n", scope=Scope.GLOBAL, action=Action.ALLOW, dry_run=True
    )


def test_written_and_read_again_it_is_the_same():
    policy = parse_static(yaml.safe_load(WHOLE), "p")
    dumped = to_static(policy)
    assert list(dumped) == ["name", "namespace", "scope", "action", "rules", "dryRun"]
    assert dumped["rules"][0][0][0]["principals"] == [{"Presence": []}]
    assert dumped["rules"][0][0][0]["namespaces"] == [{"Exact": "a"}, {"Prefix": "b"}]
    assert parse_static(dumped, "p") == policy


def test_empty_fields_of_a_match_are_left_out_of_a_dump():
    policy = parse_static(minimal(rules=[[[{"destinationPorts": [80]}, {}]]]), "p")
    assert to_static(policy)["rules"] == [[[{"destinationPorts": [80]}, {}]]]


@pytest.mark.parametrize("key", ["name", "namespace", "scope", "action", "dryRun"])
def test_a_missing_key_is_named(key):
    value = minimal()
    del value[key]
    assert problems_of(value) == [(f"policies[3].{key}", "required and missing")]


@pytest.mark.parametrize(
    ("changes", "path", "cause"),
    [
        ({"nmae": "x"}, "policies[3]", "unknown key 'nmae'; did you mean name?"),
        ({3: "x"}, "policies[3]", "unknown key '3'; valid: name, namespace, scope, action, rules, dryRun"),
        ({"name": ""}, "policies[3].name", "must not be empty"),
        ({"namespace": 5}, "policies[3].namespace", "must be a string, is a number"),
        ({"scope": "global"}, "policies[3].scope", "unknown scope 'global'; did you mean Global?"),
        ({"scope": None}, "policies[3].scope", "must be one of Global, Namespace, WorkloadSelector, is empty"),
        ({"action": "DENY"}, "policies[3].action", "unknown action 'DENY'; did you mean Deny?"),
        ({"action": "Audit"}, "policies[3].action", "unknown action 'Audit'; valid: Allow, Deny"),
        ({"dryRun": "false"}, "policies[3].dryRun", "must be true or false, is a string"),
        ({"dryRun": 0}, "policies[3].dryRun", "must be true or false, is a number"),
        ({"rules": {}}, "policies[3].rules", "must be a list, is a mapping"),
        ({"rules": None}, "policies[3].rules", "must be a list, is empty"),
        ({"rules": [{}]}, "policies[3].rules[0]", "must be a list, is a mapping"),
        ({"rules": [[{}]]}, "policies[3].rules[0][0]", "must be a list, is a mapping"),
        ({"rules": [[[[]]]]}, "policies[3].rules[0][0][0]", "must be a mapping, is a list"),
    ],
)
def test_a_wrong_policy(changes, path, cause):
    assert problems_of(minimal(**{str(k): v for k, v in changes.items()} if 3 not in changes else {}) | changes) == [(path, cause)]


NO_LENGTH = "has no prefix length: for one address write /32, or /128 for IPv6"
EMPTY = "must not be empty"
NO_RANGE = "is not a CIDR range such as 10.0.0.0/8"


@pytest.mark.parametrize(
    ("match", "where", "cause"),
    [
        ({"sourceIPs": []}, "", "unknown key 'sourceIPs'; did you mean sourceIps?"),
        (
            {"sourceIps": ["10.0.0.0/8", "::/0", "x"]},
            ".sourceIps[2]",
            f"'x' {NO_LENGTH}",
        ),
        (
            {"sourceIps": ["10.0.0.1"]},
            ".sourceIps[0]",
            f"'10.0.0.1' {NO_LENGTH}",
        ),
        ({"sourceIps": ["10.0.0/8"]}, ".sourceIps[0]", f"'10.0.0/8' {NO_RANGE}"),
        ({"notSourceIps": ["10.0.0.0/33"]}, ".notSourceIps[0]", "prefix length 33 is not in 0..32"),
        ({"destinationIps": ["fd00::/129"]}, ".destinationIps[0]", "prefix length 129 is not in 0..128"),
        (
            {"destinationIps": ["10.0.0.0/255.0.0.0"]},
            ".destinationIps[0]",
            f"'10.0.0.0/255.0.0.0' {NO_RANGE}",
        ),
        ({"notDestinationIps": ["fe80::%a/64"]}, ".notDestinationIps[0]", f"'fe80::%a/64' {NO_RANGE}"),
        ({"notDestinationIps": [""]}, ".notDestinationIps[0]", "must not be empty"),
        ({"destinationPorts": [0]}, ".destinationPorts[0]", "port 0 is not in 1..65535"),
        ({"destinationPorts": [65536]}, ".destinationPorts[0]", "port 65536 is not in 1..65535"),
        ({"destinationPorts": [10**5000]}, ".destinationPorts[0]", "port number is not in 1..65535"),
        ({"destinationPorts": ["80"]}, ".destinationPorts[0]", "must be a port number, is a string"),
        ({"notDestinationPorts": [True]}, ".notDestinationPorts[0]", "must be a port number, is a boolean"),
        ({"notDestinationPorts": [80.0]}, ".notDestinationPorts[0]", "must be a port number, is a number"),
        ({"principals": [{"exact": "x"}]}, ".principals[0]", "unknown key 'exact'; did you mean Exact?"),
        ({"principals": ["x"]}, ".principals[0]", "must be a mapping, is a string"),
        ({"principals": [{}]}, ".principals[0]", "must have exactly one of Exact, Prefix, Suffix, Presence"),
        (
            {"principals": [{"Exact": "a", "Prefix": "b"}]},
            ".principals[0]",
            "must have exactly one of Exact, Prefix, Suffix, Presence",
        ),
        ({"principals": [{"Exact": ""}]}, ".principals[0].Exact", "must not be empty"),
        ({"notPrincipals": [{"Presence": True}]}, ".notPrincipals[0].Presence", "must be an empty list: {Presence: []}"),
        ({"namespaces": [{"Exact": 1}]}, ".namespaces[0].Exact", "must be a string, is a number"),
        ({"notNamespaces": "a"}, ".notNamespaces", "must be a list, is a string"),
        ({"serviceAccounts": ["a/b"]}, ".serviceAccounts[0]", "must be a mapping, is a string"),
        ({"serviceAccounts": [{"namespace": "a"}]}, ".serviceAccounts[0].serviceAccount", "required and missing"),
        (
            {"notServiceAccounts": [{"namespace": "a", "serviceAccount": ""}]},
            ".notServiceAccounts[0].serviceAccount",
            "must not be empty",
        ),
    ],
)
def test_a_wrong_match(match, where, cause):
    found = problems_of(minimal(rules=[[[{}], [{}, match]]]))
    assert (f"policies[3].rules[0][1][1]{where}", cause) in found
    assert len(found) <= 2


@pytest.mark.parametrize("value", [None, [], "x", 5, True, object()])
def test_what_is_no_mapping_at_all(value):
    assert [path for path, _ in problems_of(value)] == ["policies[3]"]


def test_all_problems_are_reported_but_not_without_end():
    found = problems_of({"rules": [5] * 3})
    assert len(found) == 5 + 3
    assert len(problems_of(minimal(rules=[5] * 10_000))) == MAX_PROBLEMS


def test_the_error_reads_well():
    with pytest.raises(PolicyFormError, match=r"^policies\[3\]\.rules\[0\]: must be a list, is a number; .*; and 95 more$"):
        parse_static(minimal(rules=[5] * 1000), "policies[3]")
