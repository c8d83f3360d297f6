"""The ``ztunnel`` command: starts the proxy, and looks into one that runs (or into a saved dump)."""

__all__ = ["main"]


def main() -> None:
    """Console entry point. Exit status: 0 done, 1 failed, 2 used wrongly."""
    from ztunnel.cli.app import app  # late, so that importing the package for its parts costs nothing

    app(prog_name="ztunnel")
