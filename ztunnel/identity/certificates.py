"""The certificates of this node: which are held, which to fetch when, which state users see. Sans-IO.

:class:`CertificateStore` is driven by :mod:`ztunnel.identity.manager`: it says which fetches to start (``due``), is told how
they ended, and tells what changed for users (``changes``). One entry an identity, shared by all its pods; callers count their
pods and forget an identity with the last. Times are Unix seconds, as certificates' are; chance is passed in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ztunnel.identity.issued import IssuedCertificate
from ztunnel.identity.priority import Priority

__all__ = ["MAX_IN_FLIGHT", "CertificateStore", "Ready", "State", "Unavailable", "View"]

MAX_IN_FLIGHT: Final = 8
"""Fetches at a time (ztunnel's)."""
FIRST_BACKOFF: Final = 1.0
MAX_BACKOFF: Final = 150.0
BACKOFF_JITTER: Final = 0.2
"""Seconds, seconds, and share of the delay (ztunnel: 1 s, doubled, ±20 %, at most 150 s)."""
RENEWAL_JITTER: Final = 0.1
"""Renewal is at half life ± this share of it, so that a node's certificates do not all renew at once."""
REISSUE_SPREAD: Final = 10.0
"""Seconds over which everything is re-issued after the CA changed."""


class State(StrEnum):
    """What users of an identity see."""

    AVAILABLE = "Available"
    INITIALIZING = "Initializing"
    UNAVAILABLE = "Unavailable"


@dataclass(frozen=True, slots=True)
class Ready:
    """A certificate to use from now on."""

    certificate: IssuedCertificate


@dataclass(frozen=True, slots=True)
class Unavailable:
    """There is no valid certificate; those who wait are told ``error``."""

    identity: str
    error: str


Change = Ready | Unavailable


@dataclass(frozen=True, slots=True)
class View:
    """An identity for the dump. ``error`` is empty unless unavailable; ``certificate`` is absent unless available."""

    identity: str
    state: State
    error: str
    certificate: IssuedCertificate | None


@dataclass(slots=True)
class _Entry:
    priority: Priority
    order: int
    fetch_at: float
    certificate: IssuedCertificate | None = None
    error: str = ""
    failures: int = 0
    again: bool = False
    """The CA changed while a fetch was under way: what it brings is from the old one."""


class CertificateStore:
    """See the module. ``random`` gives numbers in [0, 1)."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._entries: dict[str, _Entry] = {}
        self._in_flight: set[str] = set()
        self._order = 0
        self._changes: list[Change] = []

    def want(self, identity: str, priority: Priority, now: float) -> None:
        """Hold a certificate for ``identity``. Known answers, good or bad, come at once as a change; asking again can only
        raise the priority."""
        entry = self._entries.get(identity)
        if entry is None:
            self._order += 1
            self._entries[identity] = _Entry(priority, self._order, now)
            return
        self._expire(identity, entry, now)
        if entry.certificate is not None:
            self._changes.append(Ready(entry.certificate))
            return
        entry.priority = min(entry.priority, priority)
        if entry.error:
            self._changes.append(Unavailable(identity, entry.error))

    def forget(self, identity: str) -> None:
        """Drop ``identity``; what a fetch under way brings for it is dropped too, unless it is wanted again before."""
        self._entries.pop(identity, None)

    def due(self, now: float) -> list[str]:
        """Identities to fetch now, most urgent first; they count as under way until :meth:`fetched` or :meth:`failed`."""
        for identity, entry in self._entries.items():
            self._expire(identity, entry, now)
        free = MAX_IN_FLIGHT - len(self._in_flight)
        if free <= 0:
            return []
        ready = [
            (e.priority, e.fetch_at, e.order, identity)
            for identity, e in self._entries.items()
            if e.fetch_at <= now and identity not in self._in_flight
        ]
        chosen = [identity for *_, identity in sorted(ready)[:free]]
        self._in_flight.update(chosen)
        return chosen

    def fetched(self, identity: str, certificate: IssuedCertificate, now: float) -> None:
        """A fetch brought ``certificate``; one that cannot be used counts as a failure."""
        wrong = _unusable(identity, certificate, now)
        if wrong:
            self.failed(identity, wrong, now)
            return
        self._in_flight.discard(identity)
        entry = self._entries.get(identity)
        if entry is None:
            return
        entry.certificate, entry.error, entry.failures = certificate, "", 0
        entry.priority = Priority.BACKGROUND
        half = (certificate.not_after - certificate.not_before) / 2
        entry.fetch_at = max(now + FIRST_BACKOFF, certificate.not_before + half * (1 + RENEWAL_JITTER * self._spread()))
        if entry.again:
            entry.again, entry.fetch_at = False, now
        self._changes.append(Ready(certificate))

    def failed(self, identity: str, error: str, now: float) -> None:
        """A fetch failed. A certificate that is still valid stays in use; without one users get ``error``."""
        self._in_flight.discard(identity)
        entry = self._entries.get(identity)
        if entry is None:
            return
        delay = min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** min(entry.failures, 16)) * (1 + BACKOFF_JITTER * self._spread())
        entry.failures += 1
        entry.fetch_at = now + min(MAX_BACKOFF, delay)
        entry.again = False
        entry.error = error
        had_certificate = entry.certificate is not None
        self._expire(identity, entry, now)
        if entry.certificate is None and not had_certificate:
            self._changes.append(Unavailable(identity, error))

    def reissue_all(self, now: float) -> None:
        """The CA changed: fetch everything again, spread over some seconds, what has no valid certificate at once."""
        for identity, entry in self._entries.items():
            entry.failures = 0
            if identity in self._in_flight:
                entry.again = True
            entry.fetch_at = min(entry.fetch_at, now + (REISSUE_SPREAD * self._random() if entry.certificate is not None else 0.0))

    def next_wakeup(self) -> float:
        """When :meth:`due` has something to do next, if nothing else happens before; infinity for never."""
        expiries = (e.certificate.not_after for e in self._entries.values() if e.certificate is not None)
        fetches: list[float] = []
        if len(self._in_flight) < MAX_IN_FLIGHT:
            fetches = [e.fetch_at for identity, e in self._entries.items() if identity not in self._in_flight]
        return min((*expiries, *fetches), default=float("inf"))

    def changes(self) -> list[Change]:
        """What changed for users since the last call, in order."""
        changes, self._changes = self._changes, []
        return changes

    def view(self, now: float) -> list[View]:
        """Every identity, sorted."""
        views: list[View] = []
        for identity, entry in sorted(self._entries.items()):
            if entry.certificate is not None and entry.certificate.not_after > now:
                views.append(View(identity, State.AVAILABLE, "", entry.certificate))
            elif entry.error or entry.certificate is not None:
                views.append(View(identity, State.UNAVAILABLE, entry.error or _EXPIRED, None))
            else:
                views.append(View(identity, State.INITIALIZING, "", None))
        return views

    def _expire(self, identity: str, entry: _Entry, now: float) -> None:
        if entry.certificate is None or entry.certificate.not_after > now:
            return
        entry.certificate = None
        entry.error = f"{_EXPIRED}: {entry.error}" if entry.error else _EXPIRED
        entry.priority = Priority.REAL_TIME
        self._changes.append(Unavailable(identity, entry.error))

    def _spread(self) -> float:
        """A number in [-1, 1)."""
        return 2 * self._random() - 1


_EXPIRED: Final = "certificate expired before it could be renewed"


def _unusable(identity: str, certificate: IssuedCertificate, now: float) -> str:
    """Why ``certificate`` cannot serve ``identity``, or ""."""
    if certificate.identity != identity:
        return f"the CA answered with a certificate for {certificate.identity} instead of {identity}; check how it authorizes us"
    if not certificate.chain:
        return "the CA's answer holds no certificate"
    if not certificate.roots.strip():
        return "no root certificate present in the CA's answer"
    if certificate.not_after <= now:
        return "the CA issued a certificate that has already expired; compare both clocks"
    if certificate.not_before > now:
        return "the CA issued a certificate that is not valid yet; compare both clocks"
    return ""
