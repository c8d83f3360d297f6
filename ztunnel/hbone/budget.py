"""Token buckets for frames that cost us work and carry no data."""

__all__ = ["Budget"]


class Budget:
    """``burst`` tokens at most, ``rate`` more a second. Time is passed in (seconds, any origin, never going back)."""

    __slots__ = ("burst", "last", "rate", "tokens")

    def __init__(self, burst: float, rate: float, now: float) -> None:
        self.burst = burst
        self.rate = rate
        self.tokens = burst
        self.last = now

    def spend(self, now: float, cost: float = 1.0) -> bool:
        """Take ``cost`` tokens; False when there are none left."""
        tokens = min(self.burst, self.tokens + (now - self.last) * self.rate) - cost
        self.last = now
        self.tokens = max(tokens, -1.0)
        return tokens >= 0

    def earn(self, tokens: float) -> None:
        """Give ``tokens`` for something the peer did that is worth more than what it may then send."""
        self.tokens = min(self.burst, self.tokens + tokens)
