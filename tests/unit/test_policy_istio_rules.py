"""Rules of AuthorizationPolicies, translated as istiod does (expectations recorded from it), and refused where it guesses."""

import pytest

from policy.errors import PolicyDocumentError
from policy.istio import Translated, translate
from policy.istio_rules import string_match
from policy.model import Match, ServiceAccountMatch, StringMatch, StringMatchKind

PRESENT = StringMatch(StringMatchKind.PRESENCE)


def exact(text: str) -> StringMatch:
    return StringMatch(StringMatchKind.EXACT, text)


def prefix(text: str) -> StringMatch:
    return StringMatch(StringMatchKind.PREFIX, text)


def suffix(text: str) -> StringMatch:
    return StringMatch(StringMatchKind.SUFFIX, text)


def read(rule: str, action: str = "ALLOW") -> Translated:
    text = f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p, namespace: shop}}
spec:
  action: {action}
  rules:
  - {rule}
"""
    (found,) = translate(text)
    return found


def rules(rule: str, action: str = "ALLOW") -> tuple:
    found = read(rule, action)
    assert found.notes == ()
    return found.authorization.rules


def test_clauses_in_the_order_to_from_when():
    rule = """{when: [{key: source.ip, notValues: [10.2.0.0/16]}, {key: destination.ip, notValues: [10.3.0.1]}],
      from: [{source: {notPrincipals: [cluster.local/ns/x/sa/s], notNamespaces: [n1, n2*], notIpBlocks: [10.1.0.0/16]}}],
      to: [{operation: {notPorts: ["22", "23"]}}]}"""
    assert rules(rule, "DENY") == (
        (
            (Match(not_destination_ports=(22, 23)),),
            (
                Match(
                    not_principals=(exact("cluster.local/ns/x/sa/s"),),
                    not_namespaces=(exact("n1"), prefix("n2")),
                    not_source_ips=("10.1.0.0/16",),
                ),
            ),
            (Match(not_source_ips=("10.2.0.0/16",)),),
            (Match(not_destination_ips=("10.3.0.1/32",)),),
        ),
    )


def test_elements_of_from_and_to_are_alternatives():
    rule = "{from: [{source: {namespaces: [a]}}, {source: {namespaces: [b]}}], to: [{operation: {ports: ['80']}}]}"
    assert rules(rule) == (((Match(destination_ports=(80,)),), (Match(namespaces=(exact("a"),)), Match(namespaces=(exact("b"),)))),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*", PRESENT),
        ("cluster.local/ns/x/*", prefix("cluster.local/ns/x/")),
        ("*/sa/s", suffix("/sa/s")),
        ("cluster.local/ns/x/sa/s", exact("cluster.local/ns/x/sa/s")),
        ("*mid*", suffix("mid*")),
    ],
)
def test_wildcards(text, expected):
    assert string_match(text) == expected


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        (
            "{from: [{source: {principals: ['*'], notPrincipals: ['*/sa/s']}}]}",
            Match(principals=(PRESENT,), not_principals=(suffix("/sa/s"),)),
        ),
        (
            "{from: [{source: {namespaces: [a*], notNamespaces: [ab]}}]}",
            Match(namespaces=(prefix("a"),), not_namespaces=(exact("ab"),)),
        ),
        (
            "{from: [{source: {serviceAccounts: [web, front/api], notServiceAccounts: [x]}}]}",
            Match(
                service_accounts=(ServiceAccountMatch("shop", "web"), ServiceAccountMatch("front", "api")),
                not_service_accounts=(ServiceAccountMatch("shop", "x"),),
            ),
        ),
        (
            "{from: [{source: {ipBlocks: [10.0.0.1, 'fd00::1', 10.1.2.3/8]}}]}",
            Match(source_ips=("10.0.0.1/32", "fd00::1/128", "10.0.0.0/8")),
        ),
        ("{to: [{operation: {ports: ['80', '65535']}}]}", Match(destination_ports=(80, 65535))),
        ("{when: [{key: source.ip, values: ['::ffff:10.0.0.1']}]}", Match(source_ips=("10.0.0.1/32",))),
        (
            "{when: [{key: destination.ip, values: [10.0.0.1], notValues: [10.0.0.2]}]}",
            Match(destination_ips=("10.0.0.1/32",), not_destination_ips=("10.0.0.2/32",)),
        ),
        (
            "{when: [{key: destination.port, values: ['80'], notValues: ['81']}]}",
            Match(destination_ports=(80,), not_destination_ports=(81,)),
        ),
        (
            "{when: [{key: source.namespace, values: [a], notValues: ['*']}]}",
            Match(namespaces=(exact("a"),), not_namespaces=(PRESENT,)),
        ),
        (
            "{when: [{key: source.principal, values: ['*'], notValues: [x/*]}]}",
            Match(principals=(PRESENT,), not_principals=(prefix("x/"),)),
        ),
    ],
)
def test_each_attribute(rule, match):
    assert rules(rule) == (((match,),),)


@pytest.mark.parametrize(
    ("rule", "attributes"),
    [
        ("{to: [{operation: {methods: [GET], paths: [/x]}}]}", ("methods", "paths")),
        ("{from: [{source: {namespaces: [x]}}], to: [{operation: {methods: [GET], ports: ['80']}}]}", ("methods",)),
        ("{from: [{source: {namespaces: [x]}}], when: [{key: 'request.headers[x]', values: ['1']}]}", ("request.headers[x]",)),
        ("{from: [{source: {requestPrincipals: ['*']}}]}", ("requestPrincipals",)),
        ("{from: [{source: {remoteIpBlocks: [10.0.0.1]}}]}", ("remoteIpBlocks",)),
        ("{to: [{operation: {methods: [GET]}}, {operation: {ports: ['80']}}]}", ("methods",)),
        ("{to: [{operation: {notMethods: [GET], ports: ['81']}}]}", ("notMethods",)),
        ("{when: [{key: source.serviceAccount, values: [a]}]}", ("source.serviceAccount",)),
        ("{when: [{key: connection.sni, notValues: [a]}]}", ("connection.sni",)),
    ],
)
def test_allow_leaves_out_a_rule_with_http_attributes(rule, attributes):
    found = read(rule)
    assert (found.authorization.rules, found.unsupported) == ((), attributes)
    assert found.notes[0].startswith(
        f"spec.rules[0] is left out and allows nothing: the node proxy cannot check {', '.join(attributes)};"
    )


@pytest.mark.parametrize(
    ("rule", "clauses", "note"),
    [
        (
            "{to: [{operation: {methods: [GET], ports: ['80']}}]}",
            ((Match(destination_ports=(80,)),),),
            "spec.rules[0] denies more than it says: the node proxy cannot check methods;",
        ),
        (
            "{from: [{source: {namespaces: [x]}}], to: [{operation: {methods: [GET]}}]}",
            ((Match(),), (Match(namespaces=(exact("x"),)),)),
            "spec.rules[0] has no effect and denies nothing: the node proxy cannot check methods;",
        ),
        (
            "{from: [{source: {namespaces: [x]}}], when: [{key: request.auth.principal, values: [a]}]}",
            ((Match(namespaces=(exact("x"),)),), (Match(),)),
            "spec.rules[0] has no effect and denies nothing: the node proxy cannot check request.auth.principal;",
        ),
        (
            "{to: [{operation: {methods: [GET]}}, {operation: {ports: ['80']}}]}",
            ((Match(), Match(destination_ports=(80,))),),
            "spec.rules[0] denies only in part: the node proxy cannot check methods;",
        ),
    ],
)
def test_deny_loses_http_attributes(rule, clauses, note):
    found = read(rule, "DENY")
    assert found.authorization.rules == (clauses,)
    assert found.notes[0].startswith(note)
    assert len(found.unsupported) == 1


@pytest.mark.parametrize(
    ("rule", "note"),
    [
        ("{from: [{source: {principals: ['*mid*']}}]}", "source.principals[0]: '*mid*' matches nothing"),
        ("{from: [{source: {namespaces: ['a*b']}}]}", "source.namespaces[0]: 'a*b' matches nothing"),
        ("{from: [{source: {notPrincipals: ['spiffe://t/ns/a/sa/b']}}]}", "principals are written without spiffe://"),
    ],
)
def test_values_that_never_match_are_noted(rule, note):
    found = read(rule)
    assert note in found.notes[0]
    assert len(found.authorization.rules) == 1


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("[]", ":8:5: spec.rules[0]: must be a mapping, is a list"),
        ("{form: []}", "spec.rules[0]: unknown field 'form'; did you mean from?"),
        ("{from: []}", "spec.rules[0].from: must not be empty: leave it out to match anything"),
        ("{from: [{}]}", "spec.rules[0].from[0].source: required and missing"),
        ("{from: [{source: {}}]}", "spec.rules[0].from[0].source: must have at least one field"),
        ("{from: [5]}", "spec.rules[0].from[0]: must be a mapping, is a number"),
        ("{from: [{source: {principal: [a]}}]}", "source: unknown field 'principal'; did you mean principals?"),
        ("{from: [{source: {principals: []}}]}", "source.principals: must not be empty: leave it out to match anything"),
        ("{from: [{source: {principals: ['']}}]}", "source.principals[0]: must not be empty"),
        ("{from: [{source: {principals: [~]}}]}", "source.principals[0]: must be a string, is empty"),
        ("{from: [{source: {principals: a}}]}", "source.principals: must be a list, is a string"),
        ("{from: [{source: {requestPrincipals: []}}]}", "source.requestPrincipals: must not be empty"),
        (
            "{from: [{source: {ipBlocks: [not-an-ip, 10.0.0.1]}}]}",
            "source.ipBlocks[0]: 'not-an-ip' is neither an IP address nor a range",
        ),
        ("{from: [{source: {ipBlocks: [10.0.0.0/33]}}]}", "'10.0.0.0/33' is neither"),
        ("{from: [{source: {serviceAccounts: ['a/*']}}]}", "'a/*' is not a service account"),
        ("{from: [{source: {serviceAccounts: ['a/b/c']}}]}", "'a/b/c' is not a service account"),
        ("{from: [{source: {serviceAccounts: [/c]}}]}", "'/c' is not a service account"),
        (
            "{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}",
            "source.serviceAccounts: cannot be set together with namespaces",
        ),
        ("{to: [{operation: {}}]}", "spec.rules[0].to[0].operation: must have at least one field"),
        ("{to: [{operation: {port: ['80']}}]}", "operation: unknown field 'port'; did you mean ports?"),
        ("{to: [{operation: {ports: [80]}}]}", 'operation.ports[0]: must be a string, is a number; write "80"'),
        ("{to: [{operation: {ports: [http]}}]}", "operation.ports[0]: 'http' is not a port number in 1..65535"),
        ("{to: [{operation: {ports: ['70000']}}]}", "'70000' is not a port number"),
        ("{to: [{operation: {ports: ['0']}}]}", "'0' is not a port number"),
        ("{to: [{operation: {ports: ['+80']}}]}", "'+80' is not a port number"),
        ("{to: [{operation: {ports: ['٨']}}]}", "is not a port number"),
        ("{when: [{values: [a]}]}", "spec.rules[0].when[0].key: required and missing"),
        ("{when: [{key: source.ip}]}", "spec.rules[0].when[0]: must have values or notValues"),
        ("{when: [{key: source.ip, values: []}]}", "when[0].values: must not be empty"),
        ("{when: [{key: source.pi, values: [a]}]}", "when[0].key: unknown key 'source.pi'; did you mean source.ip?"),
        ("{when: [{key: 'request.headers[', values: [a]}]}", "unknown key 'request.headers['"),
        ("{when: [{key: destination.port, values: [http]}]}", "when[0].values[0]: 'http' is not a port number"),
        ("{when: [{key: source.ip, value: [a]}]}", "when[0]: unknown field 'value'; did you mean values?"),
    ],
)
@pytest.mark.parametrize("action", ["ALLOW", "DENY", "AUDIT"])
def test_refused(rule, action, expected):
    with pytest.raises(PolicyDocumentError) as caught:
        read(rule, action)
    assert any(expected in str(problem) for problem in caught.value.problems), caught.value.problems
