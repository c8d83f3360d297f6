"""Our header encoding read back by the hpack library, and its decoder behind our bounds."""

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.hbone.errors import ErrorCode, SessionError
from ztunnel.hbone.hpack import HeaderDecoder, answer_block, field, fields, request_prefix

text = st.binary(max_size=400)


def test_literal() -> None:
    assert field(b"a", b"bc") == b"\x10\x01a\x02bc"
    assert request_prefix(b"h:1") == b"\x12\x07CONNECT\x11\x03h:1"
    assert answer_block(200) == b"\x88"
    assert answer_block(401, b"\x10\x00\x00") == b"\x18\x03401\x10\x00\x00"


@given(st.lists(st.tuples(text, text), max_size=10))
def test_fields_are_read_back(pairs: list[tuple[bytes, bytes]]) -> None:
    decoder = hpack.Decoder()
    found = decoder.decode(fields(pairs), raw=True)
    assert [(bytes(n), bytes(v)) for n, v in found] == pairs
    assert all(not header.indexable for header in found), "never indexed"


@pytest.mark.parametrize("n", [0, 1, 126, 127, 128, 254, 255, 16_383, 16_510, 16_511, 100_000])
def test_every_form_of_a_length(n: int) -> None:
    decoder = hpack.Decoder(max_header_list_size=1 << 20)
    assert decoder.decode(field(b"x", b"v" * n), raw=True) == [(b"x", b"v" * n)]


@given(st.binary(max_size=300))
def test_requests_and_answers_are_read_back(authority: bytes) -> None:
    found = HeaderDecoder(65_536).decode(request_prefix(authority))
    assert found == [(b":method", b"CONNECT"), (b":authority", authority)]


@pytest.mark.parametrize("status", [200, 204, 400, 401, 404, 500, 503])
def test_statuses(status: int) -> None:
    assert HeaderDecoder(65_536).decode(answer_block(status)) == [(b":status", b"%d" % status)]


def test_what_a_huffman_coding_indexing_peer_sends() -> None:
    encoder, decoder = hpack.Encoder(), HeaderDecoder(65_536)
    headers = [(b":method", b"CONNECT"), (b":authority", b"10.0.0.1:80"), (b"baggage", b"k8s.cluster.name=x")]
    sizes = []
    for _ in range(3):
        block = encoder.encode(headers, huffman=True)
        sizes.append(len(block))
        assert decoder.decode(block) == headers
    assert sizes[1] < 6, "from the table"


def test_a_list_that_is_too_long() -> None:
    decoder = HeaderDecoder(1_000)
    assert decoder.decode(field(b"x", b"v" * 967)) == [(b"x", b"v" * 967)]
    with pytest.raises(SessionError) as error:
        decoder.decode(field(b"x", b"v" * 968))
    assert error.value.code is ErrorCode.ENHANCE_YOUR_CALM


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_total(blocks: list[bytes]) -> None:
    decoder = HeaderDecoder(1_000)
    for block in blocks:
        try:
            decoder.decode(block)
        except SessionError:
            return
