"""Certificates from a local CA directory (``LOCAL_CA_DIR``): an issuer for the manager, and the watch over its files.

Keys and signatures are made in a thread, off the control half's event loop.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio
from cryptography import x509

from ztunnel.identity.ca_files import fingerprint, load_ca
from ztunnel.identity.ca_local import SECRET_TTL, LocalCa
from ztunnel.identity.csr import make_request
from ztunnel.identity.errors import CaFilesError
from ztunnel.identity.issued import IssuedCertificate
from ztunnel.identity.spiffe import SpiffeId, parse_spiffe

__all__ = ["POLL", "LocalCaIssuer"]

POLL: Final = 2.0
"""Seconds between looks at the CA's files (ztunnel's debounce of root changes)."""

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("ztunnel.identity")


class LocalCaIssuer:
    """Issuer over a CA directory. ``clock`` gives Unix seconds, ``ttl`` is the leaves' life in seconds."""

    def __init__(self, directory: Path, clock: Callable[[], float], ttl: float = SECRET_TTL) -> None:
        """Loads the CA. Raises CaFilesError when it cannot be used: then the proxy should not start."""
        self._directory = directory
        self._clock = clock
        self._ttl = ttl
        self._seen = fingerprint(directory)
        self._ca = load_ca(directory, clock())
        self._warn(self._ca)

    async def issue(self, identity: str) -> IssuedCertificate:
        """See Issuer. Raises IdentityError."""
        name = parse_spiffe(identity)
        return await trio.to_thread.run_sync(partial(_issue, self._ca, name, self._clock(), self._ttl))

    async def changed(self) -> None:
        """Returns once the files hold another CA that can be used; one that cannot is logged and the present one kept."""
        while True:
            await trio.sleep(POLL)
            seen = await trio.to_thread.run_sync(fingerprint, self._directory)
            if seen == self._seen:
                continue
            self._seen = seen
            try:
                ca = await trio.to_thread.run_sync(load_ca, self._directory, self._clock())
            except CaFilesError as error:
                log.warning("new CA files refused, the CA in use is kept", error=str(error), reason=error.reason)
                continue
            self._ca = ca
            self._warn(ca)
            log.info(
                "CA files changed, re-issuing all certificates", signer=ca.certificate.subject.rfc4514_string(), roots=len(ca.roots)
            )
            return

    def _warn(self, ca: LocalCa) -> None:
        for warning in ca.warnings:
            log.warning(warning)


def _issue(ca: LocalCa, identity: SpiffeId, now: float, ttl: float) -> IssuedCertificate:
    made = make_request(identity)
    chain = ca.issue(identity, made.request, now, ttl)
    leaf = x509.load_pem_x509_certificate(chain[0])
    return IssuedCertificate(
        str(identity), chain, made.key, ca.roots_pem, leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    )
