"""Our header encoding read back by the hpack library, and its decoder behind our bounds."""

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztunnel.hbone.errors import ErrorCode, SessionError
from ztunnel.hbone.hpack import HeaderDecoder, _plain, answer_block, field, fields, request_prefix

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


pieces = st.one_of(
    st.sampled_from(
        [b"\x88", b"\x8c", b"\x8d", b"\x8e", b"\x82", b"\x20", b"\x3f\xe1\x1f", b"\x40\x01a\x01b", b"\xbe", b"\x18\x03401"]
    ),
    st.builds(field, st.binary(max_size=4), st.binary(max_size=4)),
    st.builds(field, st.just(b"x" * 126), st.sampled_from([b"v" * n for n in (126, 127, 128, 253, 254, 255, 256)])),
    st.builds(request_prefix, st.binary(max_size=4)),
    st.binary(max_size=3),
)


@given(st.lists(st.lists(pieces, max_size=8).map(b"".join), max_size=4), st.integers(40, 700))
@settings(max_examples=400)
def test_the_short_way_is_the_librarys(blocks: list[bytes], max_list: int) -> None:
    """Whatever form blocks have, in whatever order: the same headers, or refused by both."""
    ours, library = HeaderDecoder(max_list), hpack.Decoder(max_header_list_size=max_list)
    library.max_allowed_table_size = 4096
    for block in blocks:
        try:
            expected = [(bytes(n), bytes(v)) for n, v in library.decode(block, raw=True)]
        except hpack.HPACKError:
            with pytest.raises(SessionError):
                ours.decode(block)
            return
        assert ours.decode(block) == expected


def test_a_short_way_is_no_longer_list() -> None:
    decoder = HeaderDecoder(420)
    assert len(decoder.decode(b"\x88" * 10)) == 10
    with pytest.raises(SessionError):
        decoder.decode(b"\x88" * 11)


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


@given(st.lists(st.tuples(st.sampled_from([b"baggage", b"forwarded", b"x"]), st.binary(max_size=300)), max_size=8))
def test_the_plain_form_says_what_the_library_says(pairs: list[tuple[bytes, bytes]]) -> None:
    block = request_prefix(b"10.0.0.1:80") + fields(pairs)
    library = [(bytes(n), bytes(v)) for n, v in hpack.Decoder().decode(block, raw=True)]
    assert HeaderDecoder(65536).decode(block) == library


@given(st.binary(max_size=60))
def test_the_plain_form_never_differs_from_the_library(block: bytes) -> None:
    plain = _plain(block)
    if plain is not None:
        assert plain == [(bytes(n), bytes(v)) for n, v in hpack.Decoder().decode(block, raw=True)]
