"""The ``error`` field of the access log: cause first, as ztunnel words it, then what to do.

Pure. ztunnel writes ``prefix: what``; our sentences are ``prefix: explanation; remedy``. With a detail the two become
``prefix: detail (explanation; remedy)``, so that searches for ztunnel's prefixes and details find ours.
"""

from typing import Final

from ztunnel.link.messages import Record
from ztunnel.reasons import FACTS, CloseReason

__all__ = ["error_of"]

_REJECTED: Final = "connection closed due to policy rejection: "
_DENIED: Final = "explicitly denied by: "
_NOT_ALLOWED: Final = "allow policies exist, but none allowed"
_STATUS: Final = "http status: 401"
_REASONS: Final = {str(reason): reason for reason in CloseReason}
_SPLIT: Final = {
    reason: (facts.sentence.partition(": ")[0], facts.sentence.partition(": ")[2])
    for reason, facts in FACTS.items()
    if facts.sentence.count(": ") == 1
}


def error_of(record: Record) -> str:
    """The operator's sentence for the record's end; "" when it ended well."""
    if record.reason == "complete" and record.series:
        return ""
    reason = _REASONS.get(record.reason)
    if reason is None:
        return f"unknown reason {record.reason}" + (f": {record.detail}" if record.detail else "")
    facts = FACTS[reason]
    if reason is CloseReason.POLICY_DENIED:
        if record.detail.startswith(_DENIED):  # the verdict's own sentence, which names the rule too
            return _REJECTED + record.detail
        policy = record.policy or record.detail
        return f"{_REJECTED}{_DENIED}{policy}" if policy else facts.sentence
    if reason is CloseReason.POLICY_NOT_ALLOWED:
        if record.detail.startswith(_NOT_ALLOWED):
            return _REJECTED + record.detail
        return _REJECTED + _NOT_ALLOWED + (f" ({record.detail})" if record.detail else "")
    if not record.detail:
        return facts.sentence
    if reason is CloseReason.PEER_DENIED and record.detail.startswith(_STATUS):
        return f"{record.detail}: {facts.sentence.removeprefix(_STATUS).lstrip(': ')}"
    prefix, rest = _SPLIT.get(reason, (facts.sentence, ""))
    return f"{prefix}: {record.detail} ({rest})" if rest else f"{prefix}: {record.detail}"
