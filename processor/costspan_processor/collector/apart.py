"""Counting once, a request at a time: nearly all calls have nothing to do with each other, nor with any before.

That they have not is seen of all at once. What `Once` remembers of each call is then wanted only if another span of its
trace comes, and what tokens it used only if another library tells of calls of its process: until then the columns are
kept as they are.
"""

from __future__ import annotations

from collections import defaultdict, deque
from itertools import chain
from operator import add, attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from costspan_processor.collector.wire import inside, trace_of
from costspan_processor.once import Once, forget_half

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

    from costspan_processor.once import Counts, Told


class Alike(NamedTuple):
    """Calls of one library in one process. Each has the same place in all columns."""

    process: Hashable
    scope: str
    trace_ids: Sequence[bytes]
    span_ids: Sequence[bytes]
    parent_ids: Sequence[bytes]
    """Empty for the root of a trace."""
    starts: Sequence[int]
    ends: Sequence[int]
    response_ids: Sequence[str | None]
    sent: Sequence[int]
    received: Sequence[int]
    """Tokens."""

    def used(self) -> Iterator[tuple[Hashable, int, int]]:
        """By what `Once` knows the counts of each."""
        return ((self.process, sent, received) for sent, received in zip(self.sent, self.received, strict=True))


class Taken:
    """The calls of a request that were taken at once, if they were."""

    __slots__ = ("_columns", "_where", "met")

    def __init__(self, *, met: bool = False) -> None:
        self.met: Final = met
        """Whether any of them is of a trace that had calls before."""
        self._columns: tuple[Sequence[Any], ...] = ((),) * 4
        self._where: Mapping[bytes, list[int]] | None = {}

    def __len__(self) -> int:
        return len(self._columns[0])

    def hold(self, traces: list[bytes], ids: list[bytes], parent_ids: list[bytes], ends: list[int]) -> None:
        """Ids as in `Told`."""
        # A tuple of what holds nothing else is soon no business of the garbage collector.
        self._columns = tuple(traces), tuple(ids), tuple(parent_ids), tuple(ends)
        self._where = None

    def within(self, trace: bytes) -> Iterator[tuple[bytes, bytes, int]]:
        """Ids and end of the calls in a trace."""
        traces, ids, parent_ids, ends = self._columns
        if self._where is None:
            self._where = where = defaultdict(list)
            for at, trace_id in enumerate(traces):
                where[trace_of(trace_id)].append(at)
        for at in self._where.get(trace, ()):
            yield ids[at], parent_ids[at], ends[at]

    def forget(self) -> None:
        """All of them."""
        self._columns, self._where = ((),) * 4, {}


class Apart(Once):
    """`Once` of spans that come in requests, for one thread; ids are those of trace and span in one.

    As many calls as `at_most` are held as columns besides, in no more traces.
    """

    def __init__(self, at_most: int, lately: int) -> None:
        super().__init__(at_most, lately)
        self._traces: dict[bytes, Taken] = {}
        """Those that had calls, and the latest of these if they were taken at once and have not been told since."""
        self._held: deque[Taken] = deque()
        self._calls_held = 0
        self._libraries: dict[Hashable, str | None] = {}
        """By process: the scope of all its calls, None if they have several."""
        self._unsorted: deque[Alike] = deque()
        """Calls of processes with one library, which `_lately` does not know yet."""
        self._calls_unsorted = 0

    def come(self, traces: Mapping[bytes, None], others: Iterable[bytes]) -> tuple[Taken, set[bytes]]:
        """Calls in these traces have come, beside spans of others; each as `trace_of` its id.

        What the calls are to be held in if `takes_all` takes them, and which of `others` are traces that have calls.
        """
        known = self._traces
        met = known.keys() & traces
        for trace in met:
            self._tell(trace)
            # Its latest call counts: the oldest are forgotten.
            del known[trace]
        taken = Taken(met=bool(met))
        known.update(dict.fromkeys(traces, taken))
        if len(known) > self._at_most:
            forget_half(known)
        near = known.keys() & others
        for trace in near:
            if known[trace] is not taken:
                self._tell(trace)
                known[trace] = _TOLD
        return taken, near

    def _tell(self, trace: bytes) -> None:
        """Put the calls of a trace where each is looked for, since another span of it has come."""
        for span_id, parent_id, end in self._traces[trace].within(trace):
            self._remember(self._calls, span_id, end)
            if parent_id:
                self._remember(self.above, parent_id)

    def takes_all(self, taken: Taken, calls: Sequence[Alike], links: dict[bytes, bytes]) -> bool:
        """`takes` of calls that have nothing to do with each other, nor with any before: whether they are such calls.

        If not, none of them is counted, and they are to be asked about one by one, in the order that they ended.
        """
        known, above, responses = self._calls, self.above, self._responses
        traces, span_ids, parents, starts, ends, answers = (
            list(chain.from_iterable(map(attrgetter(name), calls)))
            for name in ("trace_ids", "span_ids", "parent_ids", "starts", "ends", "response_ids")
        )
        ids = list(map(add, traces, span_ids))
        parent_ids = list(map(add if all(parents) else inside, traces, parents))
        reached = set(filter(None, parent_ids))
        below = reached & links.keys()
        more = below
        while more := {links[span_id] for span_id in more if span_id in links} - reached:
            reached |= more
        answered = list(filter(None, answers))
        if not (
            len(set(ids)) == len(ids)
            and reached.isdisjoint(ids)
            and not (
                taken.met and (not known.keys().isdisjoint(chain(ids, reached)) or not above.keys().isdisjoint(ids))
            )
            and len(set(answered)) == len(answered)
            and responses.keys().isdisjoint(answered)
            and self._used_apart(calls)
        ):
            return False
        for parent_id in below:
            self._remember(above, parent_id)
            self._rise(parent_id, links)
        responses.update(dict.fromkeys(answered))
        if len(responses) > self._at_most:
            forget_half(responses)
        taken.hold(traces, ids, parent_ids, [end or start for start, end in zip(starts, ends, strict=True)])
        self._held.append(taken)
        self._calls_held += len(taken)
        while self._calls_held > self._at_most:
            oldest = self._held.popleft()
            self._calls_held -= len(oldest)
            oldest.forget()
        return True

    def _used_apart(self, calls: Sequence[Alike]) -> bool:
        """Whether no two libraries tell of calls that used the same; if so, it is noted what they used."""
        libraries = self._libraries
        for alike in calls:
            self._met_library(alike.process, alike.scope)
        mixed = [alike for alike in calls if libraries.get(alike.process) is None]
        if mixed:
            self._sort()
            scopes: dict[tuple[Hashable, int, int], str] = {}
            for alike in mixed:
                for key in alike.used():
                    before = self._lately.get(key)
                    if (before is not None and before[0] != alike.scope) or (
                        scopes.setdefault(key, alike.scope) != alike.scope
                    ):
                        return False
        for alike in calls:
            self._unsorted.append(alike)
            self._calls_unsorted += len(alike.starts)
        while self._calls_unsorted - len(self._unsorted[0].starts) >= self._lately_at_most:
            self._calls_unsorted -= len(self._unsorted.popleft().starts)
        return True

    def _sort(self) -> None:
        for alike in self._unsorted:
            for key, start, end in zip(alike.used(), alike.starts, alike.ends, strict=True):
                super()._used(key, alike.scope, start, end or start)
        self._unsorted.clear()
        self._calls_unsorted = 0

    def _met_library(self, process: Hashable, scope: str) -> None:
        if self._libraries.setdefault(process, scope) != scope:
            self._libraries[process] = None
        if len(self._libraries) > self._at_most:
            forget_half(self._libraries)

    def takes(self, told: Told, response_id: object, counts: Counts, links: dict[Any, Any]) -> bool:
        """As `Once` has it."""
        self._sort()
        return super().takes(told, response_id, counts, links)

    def repeats(self, told: Told, response_id: object, counts: Counts) -> bool:
        """As `Once` has it."""
        self._sort()
        return super().repeats(told, response_id, counts)

    def _used(self, key: tuple[Hashable, int | None, int | None], scope: str, start: int, end: int) -> None:
        self._met_library(key[0], scope)
        super()._used(key, scope, start, end)


_TOLD: Final = Taken()
"""Holds nothing: the calls of such a trace are known one by one."""
