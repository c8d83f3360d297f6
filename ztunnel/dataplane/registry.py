"""Every open connection, what they have in common (series), and what is to be told about those that ended.

The data plane only counts and appends here; names, labels and lines are made in the control half.
"""

import itertools
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from ztunnel.link.messages import Closed, Counters, Party, Record, Refusals, SeriesDef
from ztunnel.reasons import CloseReason

if TYPE_CHECKING:
    from ztunnel.dataplane.conn import Conn

__all__ = ["MAX_RECORDS", "RECORDS_PER_MESSAGE", "Registry", "Series"]

MAX_RECORDS: Final = 10_000
"""Records kept while the control half is away; more are dropped and counted."""
RECORDS_PER_MESSAGE: Final = 200
MAX_DETAIL: Final = 1_000
"""Characters of a record's detail: an explanation names every dry-run policy."""
MAX_SERIES: Final = 20_000
"""Label sets counted apart; what is beyond is counted together as workload ``overflow``. A peer we have no state for names itself,
so it could otherwise make as many as it likes."""
_OVERFLOW: Final = Party(workload="overflow")


class Series:
    """Counters of connections that share all labels. Only ever grow; ``told_*`` is what the control half knows of them."""

    __slots__ = ("closed", "definition", "from_app", "id", "opened", "outbound", "to_app", "told_closed", "told_live")

    def __init__(self, definition: SeriesDef) -> None:
        self.definition = definition
        self.id = definition.id
        self.outbound = definition.reporter == "source"
        self.opened = 0
        self.from_app = 0
        self.to_app = 0
        self.closed: dict[CloseReason, int] = {}
        self.told_live = (0, 0, 0)
        self.told_closed: dict[CloseReason, int] = {}


SeriesKey = tuple[str, Party, Party, str, str, str]


class Registry:
    """One per process."""

    def __init__(self) -> None:
        self.conns: dict[Conn, None] = {}
        self.dropped = 0
        self.overflowed = 0
        self._series: dict[SeriesKey, Series] = {}
        self._new: list[Series] = []
        self._ids = itertools.count(1)
        self._records: list[Record] = []
        self._refused: dict[tuple[str, CloseReason], int] = {}
        self._told_refused: dict[tuple[str, CloseReason], int] = {}

    def series(self, reporter: str, source: Party, destination: Party, service: str, security: str, path: str) -> Series:
        """The series with these labels; made, and announced, when it is new."""
        key = (reporter, source, destination, service, security, path)
        found = self._series.get(key)
        if found is None:
            if len(self._series) >= MAX_SERIES and source is not _OVERFLOW:
                self.overflowed += 1
                return self.series(reporter, _OVERFLOW, _OVERFLOW, "", security, path)
            found = Series(SeriesDef(next(self._ids), reporter, source, destination, service, security, path))
            self._series[key] = found
            self._new.append(found)
        return found

    def record(self, record: Record) -> None:
        """Queue an access-log record."""
        if len(record.detail) > MAX_DETAIL:
            record = replace(record, detail=record.detail[:MAX_DETAIL])
        if len(self._records) < MAX_RECORDS:
            self._records.append(record)
        else:
            self.dropped += 1

    def refused(self, record: Record, reason: CloseReason) -> None:
        """A connection ended before it had a series."""
        key = (record.direction, reason)
        self._refused[key] = self._refused.get(key, 0) + 1
        self.record(record)

    @property
    def pending(self) -> int:
        """Records that wait."""
        return len(self._records)

    def forget_told(self) -> None:
        """A fresh control half knows nothing: tell it all series, and their totals."""
        self._new = list(self._series.values())
        for series in self._new:
            series.told_live = (0, 0, 0)
            series.told_closed = {}
        self._told_refused = {}

    def put_back(self, messages: list[Closed]) -> None:
        """Records a control half died over before it had read them; the newest are dropped if there are too many by now."""
        self._records[:0] = [record for message in messages for record in message.records]
        self.dropped += sum(message.dropped for message in messages) + max(0, len(self._records) - MAX_RECORDS)
        del self._records[MAX_RECORDS:]

    def take_definitions(self) -> list[SeriesDef]:
        """Series to be announced; before any record or counter of theirs."""
        new, self._new = self._new, []
        return [s.definition for s in new]

    def take_records(self) -> list[Closed]:
        """The queued records, cut into messages."""
        if not self._records and not self.dropped:
            return []
        records, self._records = self._records, []
        dropped, self.dropped = self.dropped, 0
        cut = [tuple(records[i : i + RECORDS_PER_MESSAGE]) for i in range(0, len(records), RECORDS_PER_MESSAGE)] or [()]
        return [Closed(part, dropped if i == 0 else 0) for i, part in enumerate(cut)]

    def take_counters(self) -> list[Counters | Refusals]:
        """What changed since the last time. Call after :meth:`take_definitions`."""
        live: list[tuple[int, int, int, int]] = []
        closed: list[tuple[int, str, int]] = []
        for s in self._series.values():
            request, response = (s.from_app, s.to_app) if s.outbound else (s.to_app, s.from_app)
            now = (s.opened, request, response)
            told = s.told_live
            if now != told:
                live.append((s.id, now[0] - told[0], now[1] - told[1], now[2] - told[2]))
                s.told_live = now
            for reason, count in s.closed.items():
                known = s.told_closed.get(reason, 0)
                if count != known:
                    closed.append((s.id, reason, count - known))
                    s.told_closed[reason] = count
        step = 2_000
        out: list[Counters | Refusals] = [
            Counters(tuple(live[i : i + step]), tuple(closed[i : i + step])) for i in range(0, max(len(live), len(closed)), step)
        ]
        refused = [(d, str(r), n - self._told_refused.get((d, r), 0)) for (d, r), n in self._refused.items()]
        if any(n for _, _, n in refused):
            out.append(Refusals(tuple(r for r in refused if r[2])))
            self._told_refused = dict(self._refused)
        return out
