"""Frames as bytes, checked against RFC 9113 and against the frames of hyperframe."""

import pytest
from hyperframe import frame as hf

from ztunnel.hbone import frames as fr


def test_literal() -> None:
    assert fr.header(0x010203, fr.DATA, fr.END_STREAM, 0x7FFFFFFF) == b"\x01\x02\x03\x00\x01\x7f\xff\xff\xff"
    assert fr.FRAME_HEADER.unpack(b"\x01\x02\x03\x07\x05\x00\x00\x00\x09") == (0x01020307, 5, 9)
    assert fr.SETTINGS_ACK == b"\x00\x00\x00\x04\x01\x00\x00\x00\x00"
    assert fr.PREFACE == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def made(frame: hf.Frame) -> bytes:
    return frame.serialize()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (fr.ping(b"12345678"), hf.PingFrame(0, b"12345678")),
        (fr.ping(b"12345678", ack=True), hf.PingFrame(0, b"12345678", flags=["ACK"])),
        (fr.rst_stream(7, 8), hf.RstStreamFrame(7, 8)),
        (fr.window_update(3, 2**31 - 1), hf.WindowUpdateFrame(3, 2**31 - 1)),
        (fr.goaway(5, 11, b"why"), hf.GoAwayFrame(0, 5, 11, b"why")),
        (fr.settings([(4, 70_000), (5, 16_384)]), hf.SettingsFrame(0, {4: 70_000, 5: 16_384})),
        (fr.headers(1, b"abc"), hf.HeadersFrame(1, b"abc", flags=["END_HEADERS"])),
        (fr.headers(1, b"abc", end_stream=True), hf.HeadersFrame(1, b"abc", flags=["END_HEADERS", "END_STREAM"])),
    ],
)
def test_as_hyperframe_makes_them(ours: bytes, theirs: hf.Frame) -> None:
    assert ours == made(theirs)


@pytest.mark.parametrize("length", [0, 1, 99, 100, 101, 199, 200, 201, 350])
def test_a_long_block_is_split(length: int) -> None:
    block = bytes(i % 256 for i in range(length))
    wire = fr.headers(9, block, end_stream=True, max_frame=100)
    found, kinds, flags = b"", [], []
    while wire:
        head, flag, sid = fr.FRAME_HEADER.unpack_from(wire)
        n = head >> 8
        assert n <= 100
        assert sid == 9
        kinds.append(head & 255)
        flags.append(flag)
        found += wire[9 : 9 + n]
        wire = wire[9 + n :]
    assert found == block
    assert kinds == [fr.HEADERS] + [fr.CONTINUATION] * (len(kinds) - 1)
    assert flags[0] & fr.END_STREAM
    assert [bool(flag & fr.END_HEADERS) for flag in flags] == [False] * (len(flags) - 1) + [True]
