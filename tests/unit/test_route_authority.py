"""The authority of a CONNECT: every honest form is read, everything else is nothing."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.route.authority import MAX_AUTHORITY, Authority, join, parse_authority
from ztunnel.state.addresses import canonical_ip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1:80", Authority("10.0.0.1", 80, True)),
        ("[fd00::1]:15008", Authority("fd00::1", 15008, True)),
        ("[FD00:0:0::1]:1", Authority("fd00::1", 1, True)),
        ("[::ffff:10.0.0.1]:80", Authority("10.0.0.1", 80, True)),
        ("web.default.svc.cluster.local:65535", Authority("web.default.svc.cluster.local", 65535, False)),
        ("Web:80", Authority("web", 80, False)),
        ("a_b-c.d1:80", Authority("a_b-c.d1", 80, False)),
        ("10.0.0.1a:80", Authority("10.0.0.1a", 80, False)),
        (f"{'a.' * 126}a:80", Authority(f"{'a.' * 126}a", 80, False)),
    ],
)
def test_read(text: str, expected: Authority) -> None:
    assert parse_authority(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a",
        ":80",
        "a:",
        "a:0",
        "a:080",
        "a:65536",
        "a:-1",
        "a:+1",
        "a:1_0",
        "a: 80",
        "a:80 ",
        "a:८०",
        "a:80\n",
        "10.0.0:80",
        "10.0.0.256:80",
        "010.0.0.1:80",
        "1.2.3.4.5:80",
        "10.0.0.1.:80",
        "[10.0.0.1]:80",
        "fd00::1:80",
        "[fd00::1%eth0]:80",
        "[fd00::1]80",
        "[fd00::1",
        "fd00::1]:80",
        "[]:80",
        "[[::1]]:80",
        "[:]:80",
        "user@a:80",
        "a/b:80",
        "a..b:80",
        ".a:80",
        "a.:80",
        "-a:80",
        "a-:80",
        "*.a:80",
        f"{'a' * 64}:80",
        f"{'a.' * 127}a:80",
        "ä:80",
        "\u212a:80",
        "a\x00:80",
        f"{'a' * MAX_AUTHORITY}:80",
    ],
)
def test_refused(text: str) -> None:
    assert parse_authority(text) is None


@given(st.text(max_size=600))
def test_total(text: str) -> None:
    found = parse_authority(text)
    if found is not None:
        assert parse_authority(join(found.host, found.port)) == found


@given(st.ip_addresses(), st.integers(1, 65535))
def test_written_and_read(ip: IPv4Address | IPv6Address, port: int) -> None:
    canonical = canonical_ip(str(ip))
    assert canonical is not None
    assert parse_authority(join(canonical, port)) == Authority(canonical, port, True)


@given(st.text(max_size=60))
def test_canonical_ip_is_total_and_settles(text: str) -> None:
    found = canonical_ip(text)
    assert found is None or canonical_ip(found) == found
