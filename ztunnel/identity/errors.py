"""What can go wrong with identities and certificates.

Each error carries the operator's sentence and a stable ``reason`` for log and metric. The shells of this room
translate foreign errors (OSError, cryptography's) into these; callers catch :class:`IdentityError` alone.
"""

from typing import ClassVar

__all__ = ["CaFilesError", "IdentityError", "IssueError", "SpiffeError"]


class IdentityError(Exception):
    """Root of this room's errors."""

    reason: ClassVar[str] = "identity_error"


class SpiffeError(IdentityError):
    """A text that is not a mesh identity."""

    reason: ClassVar[str] = "identity_malformed"


class CaFilesError(IdentityError):
    """The files of a local CA cannot be used; the sentence names the file, the cause and the remedy."""

    reason: ClassVar[str] = "ca_files_unusable"


class IssueError(IdentityError):
    """A certificate could not be issued; worth trying again later."""

    reason: ClassVar[str] = "certificate_not_issued"
