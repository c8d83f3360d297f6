"""AuthorizationPolicy documents: which authorization, for whom, and every refusal with its line and path."""

import pytest

from policy.errors import PolicyDocumentError
from policy.istio import Outcome, Translated, translate
from policy.model import Action, Authorization, Match, Scope, StringMatch, StringMatchKind

HEAD = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n"


def one(text: str, **options: str) -> Translated:
    (found,) = translate(text, **options)
    return found


def problems(text: str) -> list[str]:
    with pytest.raises(PolicyDocumentError) as caught:
        translate(text, file="f.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_allow_nothing():
    assert one(HEAD + "spec: {}\n") == Translated(
        name="p",
        namespace="shop",
        outcome=Outcome.TRANSLATED,
        authorization=Authorization(name="p", namespace="shop", scope=Scope.NAMESPACE, action=Action.ALLOW),
        selector=None,
    )
    assert one(HEAD) == one(HEAD + "spec: {rules: []}\n") == one(HEAD + "spec: {action: ALLOW}\n") == one(HEAD + "spec: {}\n")


@pytest.mark.parametrize(
    ("spec", "action", "rules"),
    [
        ("{rules: [{}]}", Action.ALLOW, ((),)),
        ("{action: DENY, rules: [{}]}", Action.DENY, ((),)),
        ("{action: DENY}", Action.DENY, ()),
    ],
)
def test_all_and_nothing(spec, action, rules):
    found = one(f"{HEAD}spec: {spec}\n").authorization
    assert (found.action, found.rules) == (action, rules)


@pytest.mark.parametrize(
    ("namespace", "spec", "root", "scope", "selector"),
    [
        ("shop", "{}", "istio-system", Scope.NAMESPACE, None),
        ("istio-system", "{}", "istio-system", Scope.GLOBAL, None),
        ("istio-system", "{}", "mesh", Scope.NAMESPACE, None),
        ("shop", "{selector: {matchLabels: {app: a}}}", "istio-system", Scope.WORKLOAD_SELECTOR, {"app": "a"}),
        ("istio-system", "{selector: {matchLabels: {app: a}}}", "istio-system", Scope.WORKLOAD_SELECTOR, {"app": "a"}),
        ("shop", "{selector: {matchLabels: {}}}", "istio-system", Scope.WORKLOAD_SELECTOR, {}),
        ("shop", "{selector: {}}", "istio-system", Scope.WORKLOAD_SELECTOR, {}),
    ],
)
def test_scope(namespace, spec, root, scope, selector):
    found = one(f"{HEAD.replace('shop', namespace)}spec: {spec}\n", root_namespace=root)
    assert (found.authorization.scope, found.authorization.namespace, found.selector) == (scope, namespace, selector)


@pytest.mark.parametrize(
    ("spec", "outcome", "note"),
    [
        ("{action: AUDIT, rules: [{}]}", Outcome.REFUSED, "does not support the AUDIT action"),
        ("{action: CUSTOM, provider: {name: x}, rules: [{}]}", Outcome.REFUSED, "does not support the CUSTOM action"),
        ("{targetRefs: [{kind: Service, group: '', name: a}], rules: [{}]}", Outcome.TARGETED, "it has targetRefs"),
        (
            "{action: CUSTOM, targetRef: {kind: Gateway, group: gateway.networking.k8s.io, name: w}}",
            Outcome.TARGETED,
            "it has targetRefs",
        ),
    ],
)
def test_what_is_not_for_the_node_proxy(spec, outcome, note):
    found = one(f"{HEAD}spec: {spec}\n")
    assert (found.outcome, found.authorization) == (outcome, None)
    assert note in found.notes[0]


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("True", True), ("1", True), ("false", False), ("F", False)])
def test_dry_run(value, expected):
    head = HEAD.replace("namespace: shop", f"namespace: shop, annotations: {{istio.io/dry-run: '{value}', other: ''}}")
    assert one(head).authorization.dry_run is expected


def test_several_documents_and_the_default_namespace():
    head = HEAD.replace(", namespace: shop", "")
    text = f"---\n{HEAD}---\n# nothing\n---\n{head}spec: {{action: DENY}}\n"
    found = translate(text, default_namespace="home")
    assert [(item.namespace, item.authorization.action) for item in found] == [("shop", Action.ALLOW), ("home", Action.DENY)]


def test_v1beta1_and_what_the_api_server_adds():
    text = """
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata:
  name: p
  namespace: shop
  uid: 0b5f
  generation: 3
  creationTimestamp: "2024-01-01T00:00:00Z"
  labels: {team: ""}
  managedFields: [{manager: x}]
status: {conditions: []}
spec:
  rules:
  - from: [{source: {principals: ["*"]}}]
"""
    match = Match(principals=(StringMatch(StringMatchKind.PRESENCE),))
    assert one(text).authorization.rules == (((match,),),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: b\n", "f.yaml:1:1: unknown field 'a'"),
        ("- a\n", "f.yaml:1:1: must be a mapping, is a list"),
        (HEAD + "spce: {}\n", "f.yaml:4:1: unknown field 'spce'; did you mean spec?"),
        (HEAD + "spec: []\n", "f.yaml:4:7: spec: must be a mapping, is a list"),
        (HEAD + "spec: {}\nspec: {}\n", "f.yaml:5:1: 'spec' is there twice"),
        (HEAD.replace("security.istio.io/v1", "security.istio.io/v2"), "unknown version 'security.istio.io/v2'; did you mean"),
        (
            HEAD.replace("AuthorizationPolicy", "AuthorisationPolicy"),
            "f.yaml:2:7: kind: unknown kind 'AuthorisationPolicy'; did you mean",
        ),
        (HEAD.replace("name: p, ", ""), "f.yaml:3:11: metadata.name: required and missing"),
        (HEAD.replace("name: p,", "name: 5,"), 'f.yaml:3:18: metadata.name: must be a string, is a number; write "5"'),
        (HEAD.replace("name: p,", "name: a/b,"), "metadata.name: must not contain a slash"),
        (HEAD.replace(": shop", ": a/b"), "metadata.namespace: must not contain a slash"),
        (HEAD.replace("namespace", "namepsace"), "metadata: unknown field 'namepsace'; did you mean namespace?"),
        (HEAD.replace("kind: AuthorizationPolicy\n", ""), "f.yaml:1:1: kind: required and missing"),
        (HEAD + "spec: {action: deny}\n", "f.yaml:4:16: spec.action: unknown action 'deny'; did you mean DENY?"),
        (HEAD + "spec: {action: LOG}\n", "unknown action 'LOG'; valid: ALLOW, DENY, AUDIT, CUSTOM"),
        (HEAD + "spec: {provider: {name: x}}\n", "spec.provider: is for action CUSTOM only"),
        (HEAD + "spec: {selector: {app: a}}\n", "spec.selector: unknown field 'app'; valid: matchLabels"),
        (
            HEAD + "spec: {selector: {matchLabels: {app: 1}}}\n",
            'spec.selector.matchLabels.app: must be a string, is a number; write "1"',
        ),
        (HEAD + "spec: {selector: {matchLabels: {app: a*}}}\n", "spec.selector.matchLabels.app: must not hold a wildcard"),
        (HEAD + "spec: {selector: {}, targetRefs: [{kind: Service}]}\n", "spec.targetRefs: only one of selector"),
        (HEAD + "spec: {targetRef: {kind: Service}, targetRefs: [{kind: Service}]}\n", "spec.targetRef: only one of selector"),
        (HEAD + "spec: {targetRefs: []}\n", "spec.targetRefs: must not be empty"),
        (HEAD + "spec: {targetRefs: [{knid: Service}]}\n", "spec.targetRefs[0]: unknown field 'knid'; did you mean kind?"),
        (HEAD + "spec: {rules: {}}\n", "spec.rules: must be a list, is a mapping"),
        (HEAD.replace("shop}", "shop, annotations: {istio.io/dry-run: maybe}}"), 'must be "true" or "false", is \'maybe\''),
        (HEAD.replace("shop}", "shop, annotations: {istio.io/dry-run: true}}"), "istio.io/dry-run: must be a string, is a boolean"),
        (HEAD + "---\n" + HEAD, "f.yaml:5:1: metadata.name: AuthorizationPolicy shop/p is there twice"),
    ],
)
def test_refused(text, expected):
    assert any(expected in problem for problem in problems(text)), problems(text)


def test_all_problems_of_a_text_are_reported_at_once():
    assert len(problems(f"{HEAD}spce: {{}}\n---\n{HEAD.replace('p,', 'q,')}spec: {{action: X}}\n")) == 2
