"""What the data plane tells fits the link's packets, however long its parts are."""

from collections.abc import Sequence

import msgspec

from ztunnel.link import messages as m
from ztunnel.link.packets import packets
from ztunnel.reasons import CloseReason
from ztunnel.state.model import WorkloadInfo

LONG = "p" * 253


def cut(messages: Sequence[m.UpMessage]) -> list[tuple[m.UpMessage, ...]]:
    """What arrives, with nothing left out and no packet too long."""
    out, misfits = [], list[m.UpMessage]()
    for packet in packets(messages, misfits.append):
        assert len(packet) <= m.MAX_PACKET
        out.append(m.decode_up(packet))
    assert not misfits
    return out


def record(detail: str = "") -> m.Record:
    return m.Record(1, "inbound", "10.0.0.1:1", "10.0.0.2:80", "a" * 512, 1, 2, 3.0, 4.0, "policy_denied", detail, LONG + LONG)


def view() -> m.ConnectionView:
    return m.ConnectionView(
        LONG, "inbound", "10.0.0.1:1", "10.0.0.2:80", "10.0.0.2:80", "HBONE", "tunnel", "w" * 900, 1.0, 2, 3, LONG, LONG
    )


def test_what_fits_is_one_packet() -> None:
    messages = [m.ProxyStopped("a"), m.ProxyStopped("b")]
    assert cut(messages) == [tuple(messages)]


def test_many_messages_are_cut_between_them_in_order() -> None:
    messages = [m.ProxyFailed(f"pod-{i}", "x" * 1_000) for i in range(500)]
    out = cut(messages)
    assert len(out) > 1
    assert [message for part in out for message in part] == messages


def test_records_of_long_authorities_and_details_are_cut() -> None:
    """Any peer of the mesh chooses its authorities: it must not be able to end the link with them."""
    records = tuple(record("d" * 1_000) for _ in range(200))
    parts = [message for part in cut([m.Closed(records, dropped=7)]) for message in part]
    assert len(parts) > 1
    assert all(isinstance(part, m.Closed) for part in parts)
    assert tuple(r for part in parts for r in part.records) == records  # type: ignore[union-attr]
    assert [part.dropped for part in parts] == [7] + [0] * (len(parts) - 1)  # type: ignore[union-attr]


def test_a_dump_is_cut_and_only_its_end_is_last() -> None:
    views = (view(),) * 200
    parts = [message for part in cut([m.Connections(9, views, last=True)]) for message in part]
    assert len(parts) > 1
    assert sum(len(part.connections) for part in parts) == 200  # type: ignore[union-attr]
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]  # type: ignore[union-attr]


def test_a_dump_in_progress_stays_in_progress() -> None:
    parts = [message for part in cut([m.Connections(9, (view(),) * 200, last=False)]) for message in part]
    assert not any(part.last for part in parts)  # type: ignore[union-attr]


def test_a_node_full_of_pods_can_say_hello() -> None:
    proxies = tuple(m.HeldProxy(f"{i:036}", WorkloadInfo(LONG, "n" * 63, LONG), (4, i)) for i in range(500))
    identities = tuple(f"spiffe://cluster.local/ns/{LONG}/sa/{i}" for i in range(500))
    parts = [message for part in cut([m.DataHello(1, 2, 3, proxies, identities)]) for message in part]
    assert len(parts) > 1
    assert tuple(p for part in parts for p in part.proxies) == proxies  # type: ignore[union-attr]
    assert tuple(i for part in parts for i in part.identities) == identities  # type: ignore[union-attr]
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]  # type: ignore[union-attr]


def test_counters_and_refusals_are_cut() -> None:
    big = 2**62
    live = tuple((2**31 + i, big, big, big) for i in range(5_000))
    closed = tuple((2**31 + i, str(CloseReason.CERTIFICATE_UNAVAILABLE), big) for i in range(5_000))
    parts = [message for part in cut([m.Counters(live, closed)]) for message in part]
    assert tuple(entry for part in parts for entry in part.live) == live  # type: ignore[union-attr]
    assert tuple(entry for part in parts for entry in part.closed) == closed  # type: ignore[union-attr]
    counts = tuple(("inbound", "r" * 100, i) for i in range(3_000))
    parts = [message for part in cut([m.Refusals(counts)]) for message in part]
    assert tuple(entry for part in parts for entry in part.counts) == counts  # type: ignore[union-attr]


def test_two_lists_of_one_each_are_parted() -> None:
    half = m.MAX_PACKET // 2 + 100
    hello = m.DataHello(1, 2, 3, (m.HeldProxy("u" * half, WorkloadInfo("", "", ""), (0, 0)),), ("i" * half,))
    parts = [message for part in cut([hello]) for message in part]
    assert [(len(part.proxies), len(part.identities)) for part in parts] == [(1, 0), (0, 1)]  # type: ignore[union-attr]


def test_a_misfit_is_named_and_the_rest_arrives() -> None:
    misfits: list[m.UpMessage] = []
    messages = [m.ProxyStopped("before"), m.ProxyFailed("big", "x" * m.MAX_PACKET), m.ProxyStopped("after")]
    out = [message for packet in packets(messages, misfits.append) for message in m.decode_up(packet)]
    assert out == [messages[0], messages[2]]
    assert misfits == [messages[1]]


def test_a_record_that_fits_no_packet_does_not_take_the_others_with_it() -> None:
    misfits: list[m.UpMessage] = []
    records = (record(), record("d" * m.MAX_PACKET), record())
    out = [message for packet in packets([m.Closed(records)], misfits.append) for message in m.decode_up(packet)]
    assert [r for part in out for r in part.records] == [records[0], records[2]]  # type: ignore[union-attr]
    assert sum(part.dropped for part in out) == 1  # type: ignore[union-attr]
    assert misfits == [m.Closed((records[1],))]


def test_a_dump_ends_even_if_its_last_item_fits_no_packet() -> None:
    too_long = msgspec.structs.replace(view(), why="w" * m.MAX_PACKET)
    misfits: list[m.UpMessage] = []
    out = [
        message
        for packet in packets([m.Connections(9, (view(), too_long), True)], misfits.append)
        for message in m.decode_up(packet)
    ]
    assert out == [m.Connections(9, (view(),), False), m.Connections(9, (), True)]
    assert len(misfits) == 1


def test_structs_are_not_changed_by_cutting() -> None:
    closed = m.Closed(tuple(record("d" * 1_000) for _ in range(200)), dropped=3)
    before = msgspec.msgpack.encode(closed)
    cut([closed])
    assert msgspec.msgpack.encode(closed) == before
