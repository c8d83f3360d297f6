"""The numbers of the wire, and that what cannot be put on it is refused."""

import pytest

from ztunnel.hbone.limits import SessionLimits


def test_ztunnels_defaults() -> None:
    limits = SessionLimits()
    assert (limits.stream_window, limits.connection_window, limits.frame) == (4 << 20, 16 << 20, 1 << 20)
    assert (limits.client_header_list, limits.server_header_list) == (16 << 10, 64 << 10)
    assert (limits.max_streams, limits.assumed_peer_streams) == (200, 100)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stream_window": 0},
        {"stream_window": 2**31},
        {"connection_window": 0},
        {"connection_window": 2**31},
        {"frame": 16_383},
        {"frame": 2**24},
    ],
)
def test_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="HTTP/2"):
        SessionLimits(**wrong)
