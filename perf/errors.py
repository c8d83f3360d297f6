"""What can go wrong in a performance run; ``__main__`` prints them and ends with status 2."""

__all__ = ["LoadFailed", "PerfError"]


class PerfError(Exception):
    """Root: ``cause`` and ``remedy`` are sentences for whoever started the run."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause} ({remedy})")
        self.cause = cause
        self.remedy = remedy


class LoadFailed(PerfError):
    """One measurement gave no figure; the run notes it and goes on."""
