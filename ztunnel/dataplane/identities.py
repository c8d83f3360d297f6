"""Certificates as the data plane holds them: OpenSSL contexts by identity, and who waits for which."""

from typing import TYPE_CHECKING, Any, Final, Protocol

from ztunnel.hbone.errors import TlsError
from ztunnel.hbone.tls import make_context
from ztunnel.link.messages import Certificate, NeedCertificate
from ztunnel.reasons import CloseReason

if TYPE_CHECKING:
    from ztunnel.dataplane.world import World

__all__ = ["Identities", "Waiter"]

MAX_WAITING: Final = 10_000
MAX_WAITING_EACH: Final = 1_000
"""Connections that wait for certificates, of all identities and of one: one must not use up the others' places."""


class Waiter(Protocol):
    """A connection that cannot go on without a certificate."""

    def on_certificate(self) -> None:
        """It is here."""

    def on_no_certificate(self, error: str) -> None:
        """It cannot be had; ``error`` is the issuer's sentence."""


class Identities:
    """One per process."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._certificates: dict[str, Certificate] = {}
        self._contexts: dict[tuple[str, bool], Any] = {}
        self._waiting: dict[str, list[Waiter]] = {}
        self._count = 0

    def held(self) -> tuple[str, ...]:
        """Identities we have a certificate for."""
        return tuple(self._certificates)

    def ready(self, identity: str) -> bool:
        """A certificate is here and has not expired."""
        certificate = self._certificates.get(identity)
        return certificate is not None and certificate.not_after > self._world.wall()

    def context(self, identity: str, *, server: bool) -> Any:
        """The context for a role. Raises TlsError (CERTIFICATE_UNAVAILABLE)."""
        key = (identity, server)
        context = self._contexts.get(key)
        if context is None:
            certificate = self._certificates.get(identity)
            if certificate is None:
                raise TlsError(CloseReason.CERTIFICATE_UNAVAILABLE, f"no certificate for {identity}")
            context = make_context(certificate.chain, certificate.key, certificate.roots, server=server)
            self._contexts[key] = context
        return context

    def wait(self, identity: str, waiter: Waiter) -> None:
        """Ask for a certificate and tell ``waiter``; its own deadline is its own business."""
        if self._count >= MAX_WAITING:
            waiter.on_no_certificate("too many connections wait for certificates")
            return
        waiting = self._waiting.setdefault(identity, [])
        if len(waiting) >= MAX_WAITING_EACH:
            waiter.on_no_certificate(f"{MAX_WAITING_EACH} connections wait for this certificate already")
            return
        waiting.append(waiter)
        self._count += 1
        if len(waiting) == 1:
            self._world.tell(NeedCertificate(identity))

    def ask_again(self) -> None:
        """A fresh control half does not know who waits."""
        for identity in self._waiting:
            self._world.tell(NeedCertificate(identity))

    def arrived(self, certificate: Certificate) -> None:
        """A new or renewed certificate: new handshakes use it, open tunnels go on. Raises TlsError; then the old one stays."""
        contexts = {
            (certificate.identity, server): make_context(certificate.chain, certificate.key, certificate.roots, server=server)
            for server in (False, True)
        }
        self._contexts.update(contexts)
        self._certificates[certificate.identity] = certificate
        self._forget_expired(certificate.identity)
        for waiter in self._take(certificate.identity):
            waiter.on_certificate()

    def unavailable(self, identity: str, error: str) -> None:
        """It cannot be had now."""
        for waiter in self._take(identity):
            waiter.on_no_certificate(error)

    def _forget_expired(self, but: str) -> None:
        """Service accounts come and go; those that nobody renews are not kept for ever."""
        now = self._world.wall()
        for identity in [i for i, c in self._certificates.items() if c.not_after <= now and i != but]:
            del self._certificates[identity]
            for server in (False, True):
                self._contexts.pop((identity, server), None)

    def _take(self, identity: str) -> list[Waiter]:
        waiting = self._waiting.pop(identity, [])
        self._count -= len(waiting)
        return waiting
