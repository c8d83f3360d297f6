"""Only spiffe://<td>/ns/<ns>/sa/<sa> is an identity."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.identity.errors import SpiffeError
from ztunnel.identity.spiffe import MAX_IDENTITY, parse_spiffe, spiffe_or_none


def test_parts_and_text() -> None:
    found = parse_spiffe("spiffe://cluster.local/ns/default/sa/sleep")
    assert (found.trust_domain, found.namespace, found.service_account) == ("cluster.local", "default", "sleep")
    assert str(found) == "spiffe://cluster.local/ns/default/sa/sleep"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://",
        "SPIFFE://td/ns/a/sa/b",
        "spiffe://TD/ns/a/sa/b",
        "spiffe:///ns/a/sa/b",
        "spiffe://td/ns/a/sa/",
        "spiffe://td/ns//sa/b",
        "spiffe://td/ns/a/sa/b/",
        "spiffe://td/ns/a/sa/b/c",
        "spiffe://td/ns/a",
        "spiffe://td/sa/a/ns/b",
        "spiffe://td:1/ns/a/sa/b",
        "spiffe://u@td/ns/a/sa/b",
        "spiffe://td/ns/a/sa/b?x",
        "spiffe://td/ns/a/sa/b#x",
        "spiffe://td/ns/a/sa/%62",
        "spiffe://td/ns/../sa/b",
        "spiffe://td/ns/a/sa/.",
        "spiffe://td/ns/a/sa/b\n",
        "spiffe://td/ns/a/sa/b\x00",
        "spiffe://td/ns/ä/sa/b",
        "https://td/ns/a/sa/b",
        " spiffe://td/ns/a/sa/b",
        "spiffe://" + "t" * 256 + "/ns/a/sa/b",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(SpiffeError):
        parse_spiffe(text)
    assert spiffe_or_none(text) is None


def test_length_is_bounded_at_2048() -> None:
    head = "spiffe://td/ns/a/sa/"
    assert parse_spiffe(head + "b" * (MAX_IDENTITY - len(head)))
    with pytest.raises(SpiffeError, match="2048"):
        parse_spiffe(head + "b" * (MAX_IDENTITY - len(head) + 1))


@given(st.text(alphabet="spife:/nsa.b-_%\x00é", max_size=60) | st.text(max_size=60))
def test_total_and_canonical(text: str) -> None:
    found = spiffe_or_none(text)
    assert found is None or str(found) == text
