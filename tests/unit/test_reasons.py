"""The closed list of reasons: each has its facts, and they keep the promises other rooms build on."""

import re

import pytest

from ztunnel.reasons import FACTS, CloseReason, flag_of, sentence_of, status_of

FLAGS = {"-", "DENY", "CONNECT", "NETWORK_POLICY", "H2_HANDSHAKE_FAILURE", "TLS_FAILURE", "IDENTITY_ERROR"}


def test_every_reason_has_facts() -> None:
    assert set(FACTS) == set(CloseReason)


@pytest.mark.parametrize("reason", CloseReason)
def test_facts_are_usable(reason: CloseReason) -> None:
    assert re.fullmatch(r"[a-z][a-z_]{1,38}", reason), "a metric label and a header value"
    assert reason == reason.name.lower()
    assert flag_of(reason) in FLAGS
    assert status_of(reason) in {200, 400, 401, 503}
    assert sentence_of(reason)
    assert sentence_of(reason)[-1] != "."


def test_only_completion_is_a_success() -> None:
    assert [reason for reason in CloseReason if status_of(reason) == 200] == [CloseReason.COMPLETE]


def test_only_policy_is_answered_with_401() -> None:
    """A peer takes 401 for a policy's word (its own reason is then peer_denied)."""
    assert all(reason.startswith("policy_") == (status_of(reason) == 401) for reason in CloseReason)


def test_sentences_tell_reasons_apart() -> None:
    assert len({sentence_of(reason) for reason in CloseReason}) == len(CloseReason)
