"""Policy's verdicts as reasons a connection ends for."""

from policy.verdict import Verdict, VerdictReason
from ztunnel.reasons import CloseReason

__all__ = ["reason_of"]

_REASONS = {
    VerdictReason.DENIED_BY_POLICY: CloseReason.POLICY_DENIED,
    VerdictReason.NOT_ALLOWED: CloseReason.POLICY_NOT_ALLOWED,
    VerdictReason.UNUSABLE_POLICY: CloseReason.POLICY_UNUSABLE,
}


def reason_of(verdict: Verdict) -> CloseReason:
    """The reason of a refusal."""
    return _REASONS[verdict.reason]
