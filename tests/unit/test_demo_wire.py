"""ambient.demo.wire: ports, TLS and words in literal frames; total on anything."""

from hypothesis import given
from hypothesis import strategies as st

from ambient.demo.wire import context_of, is_tls, seen, segments, tls_flows

ETHERNET = bytes(12)
A4, B4 = bytes([10, 11, 0, 1]), bytes([10, 12, 0, 1])
A6, B6 = bytes(15) + b"\x01", bytes(15) + b"\x02"


def tcp(source: int, target: int, payload: bytes) -> bytes:
    return source.to_bytes(2) + target.to_bytes(2) + bytes(8) + b"\x50\x18" + bytes(6) + payload


def v4(segment: bytes, kind: int = 6, pad: bytes = b"") -> bytes:
    head = b"\x45\x00" + (20 + len(segment)).to_bytes(2) + bytes(5) + bytes([kind]) + bytes(2) + A4 + B4
    return ETHERNET + b"\x08\x00" + head + segment + pad


def v6(segment: bytes) -> bytes:
    return ETHERNET + b"\x86\xdd" + b"\x60\x00\x00\x00" + len(segment).to_bytes(2) + b"\x06\x40" + A6 + B6 + segment


def test_segments_of_both_families_with_what_they_carry() -> None:
    found = segments([v4(tcp(40000, 8080, b"hello")), v6(tcp(40001, 15008, b"\x16\x03\x01"))])
    assert [(segment.flow, segment.payload) for segment in found] == [
        ((A4, 40000, B4, 8080), b"hello"),
        ((A6, 40001, B6, 15008), b"\x16\x03\x01"),
    ]
    assert found[0].ports == (40000, 8080)


def test_padding_empty_segments_and_other_protocols_are_nothing() -> None:
    frames = [v4(tcp(1, 2, b""), pad=bytes(6)), v4(tcp(1, 2, b"x"), kind=17), ETHERNET + b"\x08\x06" + bytes(28), b""]
    assert segments(frames) == []
    assert segments([v4(tcp(1, 2, b"x"), pad=b"pad")])[0].payload == b"x"


def test_a_flow_is_tls_by_its_first_bytes_only() -> None:
    frames = [
        v4(tcp(1, 15008, b"\x16\x03\x01\x02\x00")),
        v4(tcp(1, 15008, b"\x17\x03\x03")),
        v4(tcp(2, 15008, b"GET / HTTP/1.1")),
        v4(tcp(2, 15008, b"\x16\x03\x01")),
        v4(tcp(15008, 1, b"answers do not count")),
    ]
    assert tls_flows(segments(frames), 15008) == (2, 1)
    assert not is_tls(b"\x16")


def test_a_word_is_seen_within_a_frame_and_across_segments_of_one_flow() -> None:
    whole = [v4(tcp(1, 2, b"a secret\n"))]
    split = [v4(tcp(1, 2, b"sec")), v4(tcp(1, 2, b"ret"))]
    apart = [v4(tcp(1, 2, b"sec")), v4(tcp(3, 2, b"ret"))]
    assert seen("secret", whole)
    assert seen("secret", split, segments(split))
    assert not seen("secret", apart, segments(apart))
    assert context_of("secret", segments(whole)) == "a secret"
    assert context_of("other", segments(whole)) == ""


@given(st.lists(st.binary(max_size=120) | st.binary(max_size=80).map(lambda data: ETHERNET + b"\x08\x00\x45" + data)))
def test_total_on_anything(frames: list[bytes]) -> None:
    found = segments(frames)
    assert all(segment.payload for segment in found)
    flows, encrypted = tls_flows(found, 15008)
    assert 0 <= encrypted <= flows
