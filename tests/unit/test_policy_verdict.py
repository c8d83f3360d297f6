"""What the operator reads."""

import pytest

from policy.model import Action
from policy.verdict import DryRun, Verdict, VerdictReason


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (Verdict(False, VerdictReason.DENIED_BY_POLICY, "shop/d", 2), "explicitly denied by: shop/d (rule 2)"),
        (Verdict(True, VerdictReason.ALLOWED_BY_POLICY, "shop/a", 0), "allowed by: shop/a (rule 0)"),
        (Verdict(True, VerdictReason.NO_ALLOW_POLICIES), "allowed by default: no allow policies apply"),
        (Verdict(False, VerdictReason.NOT_ALLOWED), "allow policies exist, but none allowed"),
        (
            Verdict(False, VerdictReason.UNUSABLE_POLICY, "shop/u", cause="unknown action 2"),
            "refused: policy shop/u cannot be used: unknown action 2",
        ),
        (
            Verdict(True, VerdictReason.NO_ALLOW_POLICIES, dry_run=(DryRun("shop/d", Action.DENY, True, 1),)),
            "allowed by default: no allow policies apply; dry-run: would be denied by shop/d (rule 1)",
        ),
    ],
)
def test_sentences(verdict, sentence):
    assert verdict.explain() == str(verdict) == sentence


def test_dry_run_allow_sentences():
    assert str(DryRun("shop/a", Action.ALLOW, True, 0)) == "dry-run: would be allowed by shop/a (rule 0)"
    assert (
        str(DryRun("shop/a", Action.ALLOW, False))
        == "dry-run: would not be allowed: no dry-run allow policy matches, such as shop/a"
    )


def test_every_reason_has_a_sentence():
    assert len({Verdict(False, reason, "a/b", 0).explain() for reason in VerdictReason}) == len(VerdictReason)
