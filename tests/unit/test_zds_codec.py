"""ZDS messages against bytes worked out by hand from the protocol's field numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.state.model import WorkloadInfo
from ztunnel.zds import codec
from ztunnel.zds.codec import Add, Del, Keep, Request, Snapshot
from ztunnel.zds.errors import ZdsDecodeError, ZdsTooLongError

INFO = WorkloadInfo("p", "ns", "sa")


def test_hello_v1() -> None:
    assert codec.encode_hello() == b"\x08\x01"
    assert codec.decode_hello(b"\x08\x01") == 1
    assert codec.decode_hello(b"\x08\x02") == 2
    assert codec.decode_hello(b"") == 0


@pytest.mark.parametrize(
    ("request_", "packet"),
    [
        (Add("u1", INFO), b"\x0a\x11\x0a\x02u1\x12\x0b\x0a\x01p\x12\x02ns\x1a\x02sa"),
        (Del("u1"), b"\x12\x04\x12\x02u1"),
        (Snapshot(), b"\x1a\x00"),
        (Keep("u1"), b"\x2a\x04\x0a\x02u1"),
    ],
)
def test_requests(request_: Request, packet: bytes) -> None:
    assert codec.encode_request(request_) == packet
    assert codec.decode_request(packet) == request_


def test_responses() -> None:
    assert codec.encode_response() == b"\x0a\x00"
    assert codec.encode_response("no") == b"\x0a\x04\x0a\x02no"
    assert codec.decode_response(b"\x0a\x00") == ""
    assert codec.decode_response(b"\x0a\x04\x0a\x02no") == "no"


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (b"", "kind this proxy does not know"),
        (b"\x32\x00", "kind this proxy does not know"),
        (b"\x0a\x04\x0a\x02u1", "without workload_info"),
        (b"\x0a\x02\x12\x00", "without a workload uid"),
        (b"\x12\x04\x0a\x02u1", "without a workload uid"),
        (b"\x12\x05\x12\x02u1", "not well formed"),
        (b"\x2a\x04\x0a\x02\xff\xfe", "not well formed"),
        (b"\x1a\x00" * 513, "longer than 1024"),
    ],
)
def test_requests_that_are_refused(packet: bytes, why: str) -> None:
    with pytest.raises(ZdsDecodeError, match=why):
        codec.decode_request(packet)


def test_unknown_fields_inside_are_passed_over() -> None:
    trust_domain = b"\x22\x02td"
    assert codec.decode_request(b"\x0a\x15\x0a\x02u1\x12\x0f\x0a\x01p\x12\x02ns\x1a\x02sa" + trust_domain) == Add("u1", INFO)


def test_response_of_no_kind() -> None:
    with pytest.raises(ZdsDecodeError):
        codec.decode_response(b"")


def test_names_that_do_not_fit_are_refused_and_errors_are_cut() -> None:
    with pytest.raises(ZdsTooLongError, match="1024"):
        codec.encode_request(Keep("u" * 1024))
    packet = codec.encode_response("ü" * 5000)
    assert len(packet) <= 1024
    assert codec.decode_response(packet) == "ü" * 480
    assert codec.encode_response("\ud800") == b"\x0a\x03\x0a\x01?"


@given(st.binary(max_size=1100))
def test_decoders_are_total(packet: bytes) -> None:
    for decode in (codec.decode_request, codec.decode_response, codec.decode_hello):
        try:
            decode(packet)
        except ZdsDecodeError:
            continue


_text = st.text(st.characters(codec="utf-8"), max_size=60)


@given(st.builds(Add, _text.filter(bool), st.builds(WorkloadInfo, _text, _text, _text)) | st.builds(Del, _text.filter(bool)))
def test_round_trip(request_: Request) -> None:
    assert codec.decode_request(codec.encode_request(request_)) == request_
