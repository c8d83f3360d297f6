"""No text makes ``translate`` raise anything but its own error."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from policy.errors import PolicyDocumentError
from policy.istio import translate
from policy.wire import from_wire, to_wire

HEAD = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: "
PIECES = (
    *(
        "{",
        "}",
        "[",
        "]",
        ", ",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "&a ",
        "*a ",
        "!!x ",
        "---\n",
        "'",
        '"',
        "~",
        "\t",
        "#",
        "|",
        "*",
        "80",
        "x",
    ),
    *("rules", "from", "to", "when", "source", "operation", "key", "values", "ports", "principals", "ipBlocks", "action", "DENY"),
)


def read(text: str) -> None:
    with contextlib.suppress(PolicyDocumentError):
        for found in translate(text):
            if found.authorization is not None:
                assert from_wire(to_wire(found.authorization)) == found.authorization


@settings(max_examples=500)
@given(st.text())
def test_any_text(text):
    read(text)


@settings(max_examples=1000)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_text_that_looks_like_yaml(text):
    read(text)
    read(HEAD + text)


plain = st.sampled_from(["*", "a*", "*a", "a", "ns/a", "10.0.0.1", "10.0.0.0/8", "80", "source.ip", "request.headers[x]", ""])
lists = st.lists(plain, max_size=2)
sources = st.dictionaries(
    st.sampled_from(["principals", "notNamespaces", "serviceAccounts", "ipBlocks", "requestPrincipals"]), lists
)
operations = st.dictionaries(st.sampled_from(["ports", "notPorts", "methods"]), lists)
whens = st.fixed_dictionaries({"key": plain}, optional={"values": lists, "notValues": lists})
specs = st.fixed_dictionaries(
    {
        "action": st.sampled_from(["ALLOW", "DENY"]),
        "rules": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "from": st.lists(st.fixed_dictionaries({"source": sources}), max_size=2),
                    "to": st.lists(st.fixed_dictionaries({"operation": operations}), max_size=2),
                    "when": st.lists(whens, max_size=2),
                },
            ),
            max_size=3,
        ),
    }
)


@settings(max_examples=500)
@given(specs)
def test_policies_right_and_nearly_right(spec):
    read(HEAD + repr(spec))
