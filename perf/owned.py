"""Files and folders that belong to whom the folder around them belongs to: the run is root's, the checkout often is not."""

import os
from pathlib import Path

__all__ = ["folder", "give"]


def give(path: Path) -> None:
    """To the owner of its parent folder, as far as we may."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def folder(path: Path) -> None:
    """Make it, and what is missing above it."""
    if not path.is_dir():
        folder(path.parent)
        path.mkdir(exist_ok=True)
        give(path)
