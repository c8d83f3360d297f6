"""Runs the certificate store: fetches, timers, callbacks. One task of the control half; decides nothing itself.

The control half calls :meth:`CertificateManager.request` when a workload of this node appears (WARMUP) or the data
plane waits for an identity (REAL_TIME), and passes what the callbacks bring down the link.
"""

from collections.abc import Callable
from typing import Final

import structlog
import trio

from ztunnel.identity.certificates import CertificateStore, Ready
from ztunnel.identity.dump import IdentityDump, dump_identities
from ztunnel.identity.errors import IdentityError
from ztunnel.identity.issued import IssuedCertificate, Issuer
from ztunnel.identity.priority import Priority

__all__ = ["CertificateManager"]

FETCH_TIMEOUT: Final = 10.0
"""Seconds one fetch may take before it counts as failed."""
LONGEST_SLEEP: Final = 60.0
"""Seconds: certificates' times are wall-clock, sleeping is not, so look again now and then in case the clock was set."""

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("ztunnel.identity")


class CertificateManager:
    """``on_ready(certificate)`` and ``on_unavailable(identity, error)`` are called in the trio thread from :meth:`run`, in order.

    ``clock``: Unix seconds; ``random``: [0, 1).
    """

    def __init__(
        self,
        issuer: Issuer,
        on_ready: Callable[[IssuedCertificate], None],
        on_unavailable: Callable[[str, str], None],
        clock: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        self._issuer = issuer
        self._on_ready = on_ready
        self._on_unavailable = on_unavailable
        self._clock = clock
        self._store = CertificateStore(random)
        self._wake = trio.Event()

    def request(self, identity: str, priority: Priority = Priority.REAL_TIME) -> None:
        """Hold a certificate for ``identity`` from now on. If the answer is known it is repeated by callback."""
        self._store.want(identity, priority, self._clock())
        self._wake.set()

    def forget(self, identity: str) -> None:
        """No workload of this node has ``identity`` any more."""
        self._store.forget(identity)

    def dump(self) -> list[IdentityDump]:
        """``certificates[]`` of ``config_dump``."""
        return dump_identities(self._store.view(self._clock()))

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_issuer)
            while True:
                self._wake = trio.Event()
                now = self._clock()
                for identity in self._store.due(now):
                    nursery.start_soon(self._fetch, identity)
                self._publish()
                with trio.move_on_after(min(LONGEST_SLEEP, max(0.0, self._store.next_wakeup() - now))):
                    await self._wake.wait()

    async def _follow_issuer(self) -> None:
        while True:
            await self._issuer.changed()
            self._store.reissue_all(self._clock())
            self._wake.set()

    async def _fetch(self, identity: str) -> None:
        try:
            with trio.fail_after(FETCH_TIMEOUT):
                certificate = await self._issuer.issue(identity)
        except IdentityError as error:
            self._failed(identity, str(error), error.reason)
        except trio.TooSlowError:
            self._failed(identity, f"no certificate within {FETCH_TIMEOUT:.0f} s; is the CA reachable?", "certificate_timeout")
        except Exception as error:
            # A fault in one fetch must not take the certificates of all other workloads with it.
            log.exception("certificate fetch failed unexpectedly", identity=identity)
            self._failed(identity, f"internal error: {error!r}", "internal")
        else:
            self._store.fetched(identity, certificate, self._clock())
        self._wake.set()

    def _failed(self, identity: str, error: str, reason: str) -> None:
        log.warning("no certificate", identity=identity, error=error, reason=reason)
        self._store.failed(identity, error, self._clock())

    def _publish(self) -> None:
        for change in self._store.changes():
            if isinstance(change, Ready):
                self._on_ready(change.certificate)
            else:
                self._on_unavailable(change.identity, change.error)
