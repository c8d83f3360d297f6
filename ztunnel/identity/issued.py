"""What an issuer hands out, and the seam issuers stand behind. Pure."""

from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["IssuedCertificate", "Issuer"]


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate of one identity with its key.

    ``chain``: PEM, leaf first, then intermediates, one certificate each. ``key``: PEM, PKCS#8, unencrypted. ``roots``: PEM of
    every trusted root. ``not_before``, ``not_after``: Unix seconds of the leaf.
    """

    identity: str
    chain: tuple[bytes, ...]
    key: bytes = field(repr=False)
    roots: bytes
    not_before: float
    not_after: float


class Issuer(Protocol):
    """Where certificates come from."""

    async def issue(self, identity: str) -> IssuedCertificate:
        """A fresh certificate and key for ``identity``. Raises IdentityError."""
        ...

    async def changed(self) -> None:
        """Return when what was issued so far should be replaced (the CA or its roots changed)."""
        ...
