"""What a request and an answer may say (RFC 9113 §8.2, §8.3, §8.5), and what is kept of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.hbone.errors import RequestError
from ztunnel.hbone.request import MAX_VALUE, Answer, Request, parse_answer, parse_request
from ztunnel.reasons import CloseReason

CONNECT = [(b":method", b"CONNECT"), (b":authority", b"10.0.0.1:80")]


def test_a_bare_connect() -> None:
    assert parse_request(CONNECT) == Request(b"CONNECT", b"10.0.0.1:80", b"", b"", b"", b"")


def test_what_is_kept() -> None:
    request = parse_request(
        [
            *CONNECT,
            (b"baggage", b"k8s.cluster.name=a"),
            (b"forwarded", b'for="10.0.0.9:1234"'),
            (b"x-other", b"\xc3\xa9 anything"),
            (b"baggage", b"service.name=b"),
            (b"traceparent", b"00-1-2-00"),
            (b"x-forwarded-network", b"net1"),
            (b"te", b"trailers"),
            (b"host", b"10.0.0.1:80"),
        ]
    )
    assert request.baggage == b"k8s.cluster.name=a,service.name=b"
    assert request.forwarded == b'for="10.0.0.9:1234"'
    assert request.traceparent == b"00-1-2-00"
    assert request.x_forwarded_network == b"net1"


def test_pseudo_headers_in_the_other_order() -> None:
    assert parse_request(CONNECT[::-1]) == parse_request(CONNECT)


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ([], "no :method"),
        ([(b":authority", b"a:1")], "no :method"),
        ([(b":method", b"CONNECT")], "usable :authority"),
        ([(b":method", b"CONNECT"), (b":authority", b"")], "usable :authority"),
        ([(b":method", b"CONNECT"), (b":authority", b"a" * 513)], "usable :authority"),
        ([(b":method", b"CONNECT"), (b":authority", b"a b:1")], "usable :authority"),
        ([(b":method", b"CONNECT"), (b":authority", b"\xff:1")], "usable :authority"),
        ([(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/"), (b":authority", b"a:1")], "method 'GET' instead"),
        ([(b":method", b"connect"), (b":authority", b"a:1")], "method 'connect' instead"),
        ([*CONNECT, (b":method", b"CONNECT")], "':method' twice"),
        ([*CONNECT, (b":authority", b"10.0.0.1:80")], "':authority' twice"),
        ([*CONNECT, (b":scheme", b"https")], "CONNECT with ':scheme'"),
        ([*CONNECT, (b":path", b"/")], "CONNECT with ':path'"),
        ([*CONNECT, (b":protocol", b"websocket")], "CONNECT with ':protocol'"),
        ([*CONNECT, (b":status", b"200")], "CONNECT with ':status'"),
        ([*CONNECT, (b":", b"x")], "CONNECT with ':'"),
        ([CONNECT[0], (b"a", b"b"), CONNECT[1]], "':authority' after a header"),
        ([*CONNECT, (b"Baggage", b"x")], "'Baggage' is not lower case"),
        ([*CONNECT, (b"", b"x")], "'' is not lower case or no name"),
        ([*CONNECT, (b"a b", b"x")], "'a b' is not lower case or no name"),
        ([*CONNECT, (b"a:b", b"x")], "'a:b' is not lower case or no name"),
        ([*CONNECT, (b"a\n", b"x")], r"'a\n' is not lower case or no name"),
        ([*CONNECT, (b"a" * 99 + b"\xff", b"x")], "is not lower case or no name"),
        ([*CONNECT, (b"a", b"x\r\ny: z")], "value that HTTP/2 forbids"),
        ([*CONNECT, (b"a", b"x\0")], "value that HTTP/2 forbids"),
        ([*CONNECT, (b"a", b" x")], "value that HTTP/2 forbids"),
        ([*CONNECT, (b"a", b"x\t")], "value that HTTP/2 forbids"),
        ([*CONNECT, (b"connection", b"close")], "'connection' is not allowed"),
        ([*CONNECT, (b"proxy-connection", b"close")], "not allowed"),
        ([*CONNECT, (b"keep-alive", b"5")], "not allowed"),
        ([*CONNECT, (b"transfer-encoding", b"chunked")], "not allowed"),
        ([*CONNECT, (b"upgrade", b"h2c")], "not allowed"),
        ([*CONNECT, (b"te", b"gzip")], "not allowed"),
        ([*CONNECT, (b"host", b"10.0.0.2:80")], "Host header is not :authority"),
        ([*CONNECT, (b"host", b"10.0.0.1:80"), (b"host", b"10.0.0.1:80")], "'host' twice"),
        ([*CONNECT, (b"x-forwarded-network", b"a"), (b"x-forwarded-network", b"b")], "'x-forwarded-network' twice"),
    ],
)
def test_refused(headers: list[tuple[bytes, bytes]], why: str) -> None:
    with pytest.raises(RequestError) as error:
        parse_request(headers)
    assert why in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 250
    assert error.value.reason is CloseReason.BAD_REQUEST


def test_what_is_only_for_telemetry_is_left_out_when_it_is_unusable() -> None:
    long = b"x" * 5_000
    request = parse_request([*CONNECT, (b"baggage", long), (b"baggage", long), (b"traceparent", b"a"), (b"traceparent", b"b")])
    assert request.baggage == b""
    assert request.traceparent == b""
    assert len(parse_request([*CONNECT, (b"baggage", b"x" * MAX_VALUE)]).baggage) == MAX_VALUE


def test_an_answer() -> None:
    headers = [
        (b":status", b"401"),
        (b"baggage", b"a=b"),
        (b"x-ambient-reason", b"policy_denied"),
        (b"x-ambient-policy", b"default/deny all"),
        (b"x-ambient-reason", b"another"),
        (b"baggage", b"c=d"),
    ]
    assert parse_answer(headers) == Answer(b"a=b,c=d", "policy_denied", "default/deny all")
    assert parse_answer([(b":status", b"200")]) == Answer(b"", "", "")


@pytest.mark.parametrize("value", [b"", b"a\nb", b"\x1b[31m", b"\xc3\xa9", b" a", b"a\x7f", b"a" * 257])
def test_a_reason_that_is_not_fit_to_be_shown(value: bytes) -> None:
    assert parse_answer([(b"x-ambient-reason", value), (b"x-ambient-policy", value)]) == Answer(b"", "", "")


names = st.one_of(
    st.sampled_from([b":method", b":authority", b":path", b"baggage", b"traceparent", b"host", b"x-ambient-reason", b"te"]),
    st.binary(max_size=20),
)
values = st.one_of(st.sampled_from([b"CONNECT", b"a:1", b""]), st.binary(max_size=40))


@given(st.lists(st.tuples(names, values), max_size=12), st.booleans())
def test_total(headers: list[tuple[bytes, bytes]], connect: bool) -> None:
    answer = parse_answer(headers)
    assert (answer.reason + answer.policy).isascii()
    assert (answer.reason + answer.policy).isprintable()
    try:
        request = parse_request([*CONNECT, *headers] if connect else headers)
    except RequestError as e:
        detail = e.detail
    else:
        detail = ""
    assert detail.isprintable()
    if detail:
        return
    assert request.method == b"CONNECT"
    assert request.authority.decode("ascii").isprintable()
    assert not any(c in request.baggage + request.forwarded + request.traceparent for c in b"\r\n\0")
