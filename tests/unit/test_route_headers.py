"""The headers of a CONNECT: written in Istio's form, read from anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.route.headers import (
    MAX_BAGGAGE,
    MAX_BAGGAGE_VALUE,
    Baggage,
    Forwarded,
    decode_baggage,
    decode_forwarded,
    decode_traceparent,
    encode_baggage,
    encode_forwarded,
    encode_traceparent,
)
from ztunnel.state.model import Locality, Workload

FULL = Workload(
    uid="u",
    namespace="ns",
    workload_name="web",
    workload_type="deployment",
    canonical_name="web-app",
    canonical_revision="v1",
    locality=Locality("eu", "eu-1"),
)
TEXT = (
    b"k8s.cluster.name=Kubernetes,k8s.namespace.name=ns,k8s.deployment.name=web,service.name=web-app,service.version=v1,"
    b"cloud.region=eu,cloud.availability_zone=eu-1"
)
READ = Baggage("Kubernetes", "ns", "deployment", "web", "web-app", "v1", "eu", "eu-1")


def test_baggage_has_istios_order() -> None:
    assert encode_baggage(FULL) == TEXT
    assert decode_baggage([TEXT]) == READ


def test_baggage_leaves_out_what_is_empty_or_unwritable() -> None:
    plain = Workload(
        uid="u", namespace="ns", workload_name="a,b", canonical_name="ünï", canonical_revision="a;b", workload_type="odd"
    )
    assert encode_baggage(plain) == b"k8s.cluster.name=Kubernetes,k8s.namespace.name=ns"
    odd = Workload(uid="u", namespace="ns", workload_name="w", workload_type="odd", cluster_id="")
    assert encode_baggage(odd) == b"k8s.namespace.name=ns,k8s.pod.name=w"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], Baggage()),
        ([b""], Baggage()),
        (TEXT.split(b","), READ),
        ([b" service.name=a\t, other=x , service.name=b"], Baggage(service="b")),
        ([b"service.name=, k8s.job.name=j"], Baggage(workload_type="job", workload_name="j")),
        ([b"service.name=a=b"], Baggage(service="a=b")),
        ([b"service.name=a;p=1", b"service.name=a b", b"service.name=\xff", b"service.name=a\r\nb"], Baggage()),
        ([b"service.name=" + b"a" * MAX_BAGGAGE_VALUE], Baggage(service="a" * MAX_BAGGAGE_VALUE)),
        ([b"service.name=" + b"a" * (MAX_BAGGAGE_VALUE + 1)], Baggage()),
        ([b"service.name=a", b"x" * MAX_BAGGAGE], Baggage()),
        ([b"service.name=a" + b"," * 64], Baggage()),
    ],
)
def test_baggage_read(lines: list[bytes], expected: Baggage) -> None:
    assert decode_baggage(lines) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b'for="10.0.0.1:80"', Forwarded("10.0.0.1", 80)),
        (b'for="10.0.0.1:80";host=web.svc', Forwarded("10.0.0.1", 80, "web.svc")),
        (b'for="[fd00::1]:80";host="web.svc"', Forwarded("fd00::1", 80, "web.svc")),
        (b'For="[::ffff:10.0.0.1]:80"; proto=http ;HOST=a', Forwarded("10.0.0.1", 80, "a")),
        (b"for=10.0.0.1:80", Forwarded("10.0.0.1", 80)),
        (b"", None),
        (b"for=", None),
        (b"for=10.0.0.1", None),
        (b'for="10.0.0.1:0"', None),
        (b'for="10.0.0.1:99999"', None),
        (b'for="fd00::1:80"', None),
        (b'for="[10.0.0.1]:80"', None),
        (b'for="_hidden"', None),
        (b'for="10.0.0.1:80";for="10.0.0.2:80"', None),
        (b'for="10.0.0.1:80", for="10.0.0.2:80"', None),
        (b'for="10.0.0.1:80";', None),
        (b'for="10.0.0.1:80";host="a b"', None),
        (b'for="10.0.0.1:80";host="a\\"b"', None),
        (b'for="10.0.0.1:80";host=' + b"a" * 500, None),
        (b"host=a", None),
    ],
)
def test_forwarded_read(header: bytes, expected: Forwarded | None) -> None:
    assert decode_forwarded(header) == expected


def test_forwarded_written() -> None:
    assert encode_forwarded("10.0.0.1", 80) == b'for="10.0.0.1:80"'
    assert encode_forwarded("fd00::1", 80, "web.svc") == b'for="[fd00::1]:80";host=web.svc'
    assert encode_forwarded("10.0.0.1", 80, "a\r\nb") == b'for="10.0.0.1:80"'


def test_traceparent_written() -> None:
    random = bytes(range(16))
    header = encode_traceparent(random)
    assert header == b"00-000102030405060708090a0b0c0d0e0f-08090a0b0c0d0e0f-00"
    assert len(header) == 55
    assert decode_traceparent(header) == random.hex()
    for bad in (bytes(16), bytes(15), b"x" * 17, b"x" * 8 + bytes(8)):
        with pytest.raises(ValueError, match="16 random bytes"):
            encode_traceparent(bad)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"00-" + b"0" * 32 + b"-0000000000000001-00",
        b"00-" + b"1" * 32 + b"-0000000000000000-00",
        b"01-" + b"1" * 32 + b"-0000000000000001-00",
        b"00-" + b"A" * 32 + b"-0000000000000001-00",
        b"00-" + b"1" * 32 + b"-0000000000000001-00\n",
        b"00-" + b"1" * 32 + b"-0000000000000001-00-x",
    ],
)
def test_traceparent_refused(header: bytes) -> None:
    assert decode_traceparent(header) is None


@given(st.binary(max_size=600))
def test_readers_are_total(header: bytes) -> None:
    decode_baggage([header, header])
    found = decode_forwarded(header)
    if found is not None:
        assert decode_forwarded(encode_forwarded(found.ip, found.port, found.host)) == found
    trace = decode_traceparent(header)
    assert trace is None or len(trace) == 32


@given(st.text(alphabet='for="10.;,:[] hst\\', max_size=80))
def test_forwarded_is_total_near_its_grammar(text: str) -> None:
    decode_forwarded(text.encode())


_names = st.text(st.characters(max_codepoint=0x17F), max_size=300)


@given(_names, _names, _names, st.sampled_from(["deployment", "cronjob", "pod", "job"]))
def test_baggage_reads_what_it_wrote(name: str, app: str, version: str, kind: str) -> None:
    workload = Workload(
        uid="u", namespace="ns", workload_name=name, workload_type=kind, canonical_name=app, canonical_revision=version
    )
    found = decode_baggage([encode_baggage(workload)])
    assert found.namespace == "ns"
    for got, was in ((found.workload_name, name), (found.service, app), (found.revision, version)):
        assert got in (was, "")
