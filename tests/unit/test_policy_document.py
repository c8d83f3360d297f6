"""YAML text that is hostile or broken, before anyone looks at what it says."""

import pytest

import policy.document
from policy.document import MAX_DEPTH, MAX_PROBLEMS, MAX_TEXT, Reader
from policy.errors import PolicyDocumentError
from policy.istio import translate

HEAD = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\n"


def failure(text: str) -> str:
    with pytest.raises(PolicyDocumentError) as caught:
        translate(text, file="f.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "f.yaml:2:1: not YAML: "),
        ("a: b: c", "f.yaml:1:5: not YAML: mapping values are not allowed in this context"),
        ("a: *nobody", "f.yaml:1:4: not YAML: found undefined alias"),
        ("\x00", "not YAML: "),
        ("\ud800", "not YAML: "),
        ("[" * (MAX_DEPTH + 1), f"f.yaml:1:{MAX_DEPTH + 1}: nested deeper than {MAX_DEPTH} levels"),
        ("{a: " * 100_000, f"nested deeper than {MAX_DEPTH} levels"),
        ("- " * 100_000, f"nested deeper than {MAX_DEPTH} levels"),
        ("#" * (MAX_TEXT + 1), f"{MAX_TEXT + 1} characters, more than {MAX_TEXT}"),
        ("? [a]\n: b", "f.yaml:1:3: a key must be a string, is a list"),
        ("!!python/object/apply:os.system [x]", "f.yaml:1:1: must be a mapping, is a list"),
    ],
)
def test_refused(text, expected):
    assert expected in failure(text)


def test_a_document_that_contains_itself_is_read_no_deeper_than_its_fields():
    assert "must be a string, is a list" in failure(HEAD + "spec: {rules: [{from: [{source: {principals: &a [*a]}}]}]}\n")


def test_aliases_count_each_time(monkeypatch):
    monkeypatch.setattr(policy.document, "MAX_VALUES", 500)
    names = "[" + ", ".join(["x"] * 30) + "]"
    first = f"{{from: [{{source: {{namespaces: &n {names}}}}}]}}"
    bomb = HEAD + "spec: {rules: [" + ", ".join([first, *["{from: [{source: {namespaces: *n}}]}"] * 30]) + "]}\n"
    assert "more than 500 values, at spec.rules[" in failure(bomb)


def test_problems_are_bounded():
    with pytest.raises(PolicyDocumentError) as caught:
        translate(HEAD + "spec: {rules: [" + "5, " * 10_000 + "]}\n")
    assert len(caught.value.problems) == MAX_PROBLEMS


def test_empty_documents_are_none():
    assert Reader("").documents("---\n---\n# a comment\n---\n~\n") == []
    assert translate("") == ()
