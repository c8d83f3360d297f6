"""The certificate source of a proxy that has none."""

import trio

from ztunnel.identity.errors import IssueError
from ztunnel.identity.issued import IssuedCertificate

__all__ = ["AbsentIssuer"]


class AbsentIssuer:
    """Says what is missing, whenever a certificate is wanted."""

    async def issue(self, identity: str) -> IssuedCertificate:
        """Always raises IssueError."""
        await trio.lowlevel.checkpoint()
        remedy = "set LOCAL_CA_DIR to a directory with ca-cert.pem, ca-key.pem and root-cert.pem"
        raise IssueError(f"no certificate for {identity}: no CA is configured; {remedy}")

    async def changed(self) -> None:
        """Never returns."""
        await trio.sleep_forever()
