"""The certificate store as a dialogue under a virtual clock."""

from ztunnel.identity.certificates import MAX_IN_FLIGHT, CertificateStore, Ready, State, Unavailable
from ztunnel.identity.issued import IssuedCertificate
from ztunnel.identity.priority import Priority

A, B, C = (f"spiffe://cluster.local/ns/default/sa/{x}" for x in "abc")
DAY = 86_400.0
MIDDLE = 0.5
"""The chance that gives no jitter."""


def cert(identity: str, start: float = 0.0, life: float = DAY) -> IssuedCertificate:
    return IssuedCertificate(identity, (b"leaf",), b"key", b"root", start, start + life)


def store(chance: float = MIDDLE) -> CertificateStore:
    return CertificateStore(lambda: chance)


def have(s: CertificateStore, identity: str, now: float = 0.0, life: float = DAY) -> IssuedCertificate:
    s.want(identity, Priority.REAL_TIME, now)
    assert s.due(now) == [identity]
    c = cert(identity, now, life)
    s.fetched(identity, c, now)
    assert s.changes() == [Ready(c)]
    return c


def test_first_use_fetches_later_uses_are_answered_at_once() -> None:
    s = store()
    c = have(s, A)
    s.want(A, Priority.REAL_TIME, 10)
    assert s.changes() == [Ready(c)]
    assert s.due(10) == []


def test_renewal_at_half_life() -> None:
    s = store()
    have(s, A)
    assert s.next_wakeup() == DAY / 2
    assert s.due(DAY / 2 - 1) == []
    assert s.due(DAY / 2) == [A]


def test_renewal_jitter_is_a_tenth_of_half_life_each_way() -> None:
    for chance, expected in ((0.0, 0.9 * DAY / 2), (1.0, 1.1 * DAY / 2)):
        s = store(chance)
        have(s, A)
        assert abs(s.next_wakeup() - expected) < 1e-6


def test_renewed_certificate_replaces_the_old_one() -> None:
    s = store()
    have(s, A)
    assert s.due(DAY / 2) == [A]
    new = cert(A, DAY / 2)
    s.fetched(A, new, DAY / 2)
    assert s.changes() == [Ready(new)]
    assert s.next_wakeup() == DAY


def test_priority_orders_and_a_repeat_raises_it() -> None:
    s = store()
    names = [f"spiffe://cluster.local/ns/n/sa/{i}" for i in range(MAX_IN_FLIGHT)]
    for name in names:
        s.want(name, Priority.WARMUP, 0)
    assert s.due(0) == names
    s.want(A, Priority.BACKGROUND, 1)
    s.want(B, Priority.WARMUP, 1)
    s.want(C, Priority.WARMUP, 1)
    s.want(C, Priority.REAL_TIME, 1)
    s.want(C, Priority.BACKGROUND, 1)
    assert s.due(1) == []
    order = []
    for name in names[:3]:
        s.fetched(name, cert(name), 1)
        order += s.due(1)
    assert order == [C, B, A]


def test_earlier_requests_of_a_priority_go_first() -> None:
    s = store()
    s.want(B, Priority.WARMUP, 0)
    s.want(A, Priority.WARMUP, 0)
    assert s.due(0) == [B, A]


def test_at_most_eight_in_flight() -> None:
    s = store()
    for i in range(20):
        s.want(f"spiffe://cluster.local/ns/n/sa/{i}", Priority.REAL_TIME, 0)
    first = s.due(0)
    assert len(first) == 8
    assert s.due(0) == []
    s.failed(first[0], "no", 0)
    s.fetched(first[1], cert(first[1]), 0)
    assert len(s.due(0)) == 2


def test_wakeup_while_full_is_not_now() -> None:
    s = store()
    for i in range(9):
        s.want(f"spiffe://cluster.local/ns/n/sa/{i}", Priority.REAL_TIME, 0)
    s.due(0)
    assert s.next_wakeup() == float("inf")


def test_duplicates_share_one_fetch() -> None:
    s = store()
    for _ in range(5):
        s.want(A, Priority.REAL_TIME, 0)
    assert s.due(0) == [A]
    s.want(A, Priority.REAL_TIME, 0)
    assert s.due(0) == []


def test_forget_while_pending_drops_the_answer() -> None:
    s = store()
    s.want(A, Priority.REAL_TIME, 0)
    s.due(0)
    s.forget(A)
    s.fetched(A, cert(A), 1)
    assert s.changes() == []
    assert s.view(1) == []
    assert s.next_wakeup() == float("inf")


def test_forgotten_and_wanted_again_while_pending_uses_the_answer() -> None:
    s = store()
    s.want(A, Priority.REAL_TIME, 0)
    s.due(0)
    s.forget(A)
    s.want(A, Priority.WARMUP, 0)
    assert s.due(0) == []
    s.fetched(A, cert(A), 1)
    assert [v.state for v in s.view(1)] == [State.AVAILABLE]


def test_forget_queued_is_never_fetched() -> None:
    s = store()
    s.want(A, Priority.REAL_TIME, 0)
    s.forget(A)
    assert s.due(0) == []


def test_failure_without_certificate_is_told_and_backed_off() -> None:
    s = store()
    s.want(A, Priority.REAL_TIME, 0)
    now, delays = 0.0, []
    for _ in range(10):
        assert s.due(now) == [A]
        s.failed(A, "CA is away", now)
        assert s.changes() == [Unavailable(A, "CA is away")]
        delays.append(s.next_wakeup() - now)
        assert s.due(s.next_wakeup() - 0.001) == []
        now = s.next_wakeup()
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 150, 150]


def test_backoff_jitter_and_cap() -> None:
    for chance, first in ((0.0, 0.8), (1.0, 1.2)):
        s = store(chance)
        s.want(A, Priority.REAL_TIME, 0)
        s.due(0)
        s.failed(A, "no", 0)
        assert abs(s.next_wakeup() - first) < 1e-9
        for _ in range(40):
            now = s.next_wakeup()
            s.due(now)
            s.failed(A, "no", now)
            assert s.next_wakeup() - now <= 150 + 1e-6


def test_use_during_backoff_gets_the_error_at_once_and_no_extra_fetch() -> None:
    s = store()
    s.want(A, Priority.REAL_TIME, 0)
    s.due(0)
    s.failed(A, "CA is away", 0)
    s.changes()
    s.want(A, Priority.REAL_TIME, 0.5)
    assert s.changes() == [Unavailable(A, "CA is away")]
    assert s.due(0.5) == []


def test_backoff_is_reset_by_success() -> None:
    s = store()
    s.want(A, Priority.REAL_TIME, 0)
    for now in (0.0, 1.0, 3.0):
        assert s.due(now) == [A]
        s.failed(A, "no", now)
    assert s.due(7.0) == [A]
    s.fetched(A, cert(A, 7.0), 7.0)
    renew = s.next_wakeup()
    assert s.due(renew) == [A]
    s.failed(A, "no", renew)
    assert s.next_wakeup() == renew + 1


def test_failed_renewal_keeps_the_old_one_until_it_expires() -> None:
    s = store()
    have(s, A, life=100)
    assert s.due(50) == [A]
    s.failed(A, "CA is away", 50)
    assert s.changes() == []
    assert [v.state for v in s.view(99)] == [State.AVAILABLE]
    assert s.due(51) == [A]
    assert s.next_wakeup() == 100
    assert s.due(100) == []
    (lost,) = s.changes()
    assert isinstance(lost, Unavailable)
    assert "expired" in lost.error
    assert "CA is away" in lost.error
    (seen,) = s.view(100)
    assert (seen.state, seen.certificate) == (State.UNAVAILABLE, None)


def test_an_expired_identity_is_fetched_before_renewals() -> None:
    s = store()
    have(s, A, life=100)
    have(s, B, life=10_000)
    assert s.due(5000) == [A, B]


def test_unusable_answers_count_as_failures() -> None:
    cases = {
        "instead of": cert(B),
        "no certificate": IssuedCertificate(A, (), b"k", b"r", 0, DAY),
        "no root certificate present": IssuedCertificate(A, (b"l",), b"k", b" \n", 0, DAY),
        "already expired": cert(A, -100, 50),
        "not valid yet": cert(A, 100),
    }
    for text, answer in cases.items():
        s = store()
        s.want(A, Priority.REAL_TIME, 0)
        s.due(0)
        s.fetched(A, answer, 0)
        (change,) = s.changes()
        assert isinstance(change, Unavailable)
        assert text in change.error
        assert s.next_wakeup() == 1


def test_a_very_short_life_does_not_spin() -> None:
    s = store()
    have(s, A, now=1000, life=0.01)
    assert s.due(1000) == []
    assert s.due(1001) == [A]


def test_ca_change_reissues_everything_even_what_is_under_way() -> None:
    s = store()
    have(s, A)
    s.want(B, Priority.WARMUP, 1)
    assert s.due(1) == [B]
    s.reissue_all(1)
    s.fetched(B, cert(B), 2)
    assert s.due(2) == [B]
    assert s.due(6) == [A]
    s.fetched(B, cert(B), 6)
    assert s.due(7) == []


def test_view_states() -> None:
    s = store()
    have(s, A)
    s.want(B, Priority.WARMUP, 0)
    s.want(C, Priority.WARMUP, 0)
    s.due(0)
    s.failed(C, "no", 0)
    assert [(v.state, v.error) for v in s.view(1)] == [(State.AVAILABLE, ""), (State.INITIALIZING, ""), (State.UNAVAILABLE, "no")]
