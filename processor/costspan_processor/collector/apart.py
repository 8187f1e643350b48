"""Counting once, a request at a time: nearly all calls have nothing to do with each other, nor with any before.

Which have not is seen of all at once, and only the others are asked about one by one. What `Once` remembers of each
call is then wanted only if another span of its trace comes, and what tokens it used only if another library tells of
calls of its process: until then the columns are kept as they are.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from itertools import chain, compress, islice
from operator import add, attrgetter, itemgetter
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

    def only(self, which: Sequence[bool]) -> Alike:
        """Some of the calls."""
        columns: list[Any] = [list(compress(column, which)) for column in self[2:]]
        return Alike(self.process, self.scope, *columns)


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
        self._decided: dict[bytes, bool] = {}
        """What `repeated` said of each."""
        self._held: deque[Taken] = deque()
        self._calls_held = 0
        self._libraries: dict[Hashable, str | None] = {}
        """By process: the scope of all its calls, None if they have several."""
        self._unsorted: deque[Alike] = deque()
        """Calls of processes with one library, which `_lately` does not know yet."""
        self._calls_unsorted = 0

    def come(self, traces: Mapping[bytes, None], others: Iterable[bytes]) -> tuple[Taken, set[bytes]]:
        """Calls in these traces have come, beside spans of others; each as `trace_of` its id.

        What the calls are to be held in if `takes_apart` takes them, and which of `others` are traces that have calls.
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

    def takes_apart(self, taken: Taken, calls: Sequence[Alike], links: dict[bytes, bytes]) -> list[bool]:
        """`counted` of those calls that have nothing to do with each other, nor with any before: which they are.

        The others are to be asked about one by one after that, in the order that they ended.
        """
        columns = _columns(calls)
        which = self._apart(taken, calls, columns, links)
        if not any(which):
            return which
        if not all(which):
            each = iter(which)
            calls = [alike.only(list(islice(each, len(alike.starts)))) for alike in calls]
            columns = [list(compress(column, which)) for column in columns]
        traces, ids, parent_ids, starts, ends, answers = columns
        for parent_id in links.keys() & parent_ids:
            self._remember(self.above, parent_id)
            self._rise(parent_id, links)
        responses = self._responses
        responses.update(dict.fromkeys(filter(None, answers)))
        if len(responses) > self._at_most:
            forget_half(responses)
        for alike in filter(attrgetter("starts"), calls):
            self._unsorted.append(alike)
            self._calls_unsorted += len(alike.starts)
        while self._calls_unsorted - len(self._unsorted[0].starts) >= self._lately_at_most:
            self._calls_unsorted -= len(self._unsorted.popleft().starts)
        taken.hold(traces, ids, parent_ids, [end or start for start, end in zip(starts, ends, strict=True)])
        self._held.append(taken)
        self._calls_held += len(taken)
        while self._calls_held > self._at_most:
            oldest = self._held.popleft()
            self._calls_held -= len(oldest)
            oldest.forget()
        return which

    def _apart(
        self, taken: Taken, calls: Sequence[Alike], columns: Sequence[list[Any]], links: Mapping[bytes, bytes]
    ) -> list[bool]:
        """Which of the calls have nothing to do with any other."""
        traces, ids, parent_ids, _, _, answers = columns
        if set(map(len, traces)) != {_TRACE_BYTES}:
            # What is not as it should be cannot be told apart so easily.
            return [False] * len(traces)
        reached = set(filter(None, parent_ids))
        more = reached & links.keys()
        while more := {links[span_id] for span_id in more if span_id in links} - reached:
            reached |= more
        distinct = set(ids)
        close = distinct & reached
        if taken.met:
            known = self._calls.keys()
            close |= (known & distinct) | (known & reached) | (self.above.keys() & distinct)
            close |= self._decided.keys() & distinct
        if len(distinct) != len(ids):
            close |= {span_id for span_id, times in Counter(ids).items() if times > 1}
        which = [True] * len(ids)
        if close:
            # All that can happen in a call or around it is in its trace.
            tangled = {span_id[:_TRACE_BYTES] for span_id in close}
            which = [trace not in tangled for trace in traces]
        answered = list(filter(None, answers))
        if len(set(answered)) != len(answered) or not self._responses.keys().isdisjoint(answered):
            times = Counter(answered)
            again = {answer for answer in times if times[answer] > 1 or answer in self._responses}
            which = [apart and answer not in again for apart, answer in zip(which, answers, strict=True)]
        if shared := self._shared(calls):
            used = chain.from_iterable([alike.used() for alike in calls])
            which = [apart and counts not in shared for apart, counts in zip(which, used, strict=True)]
        return which

    def _shared(self, calls: Sequence[Alike]) -> set[tuple[Hashable, int, int]]:
        """What calls used of which another library has told too."""
        for alike in calls:
            self._met_library(alike.process, alike.scope)
        mixed = [alike for alike in calls if self._libraries.get(alike.process) is None]
        if mixed:
            self._sort()
        scopes: dict[tuple[Hashable, int, int], str] = {}
        shared: set[tuple[Hashable, int, int]] = set()
        for alike in mixed:
            for counts in alike.used():
                before = self._lately.get(counts)
                if (before is not None and before[0] != alike.scope) or (
                    scopes.setdefault(counts, alike.scope) != alike.scope
                ):
                    shared.add(counts)
        return shared

    def repeated(
        self, told: Told, response_id: object, counts: Counts, contains: bool, links: dict[Any, Any] | None
    ) -> tuple[bool, bool]:
        """Whether another span carries a call's cost, and whether that was known before.

        `contains`: what `ends` said of it. With `links`, it is noted that this one carries it.
        """
        key = told[0]
        repeated = self._decided.get(key, False if key in self._calls else None)
        if repeated is not None:
            return repeated, True
        repeated = contains or self.repeats(told, response_id, counts)
        if not repeated and links is not None:
            self.counted(told, response_id, counts, links)
        self._decided[key] = repeated
        if len(self._decided) > self._at_most:
            forget_half(self._decided)
        return repeated, False

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

    def repeats(self, told: Told, response_id: object, counts: Counts) -> bool:
        """As `Once` has it."""
        self._sort()
        return super().repeats(told, response_id, counts)

    def _used(self, key: tuple[Hashable, int | None, int | None], scope: str, start: int, end: int) -> None:
        self._met_library(key[0], scope)
        super()._used(key, scope, start, end)


def _columns(calls: Sequence[Alike]) -> list[list[Any]]:
    """Of all of them: trace, ids as in `Told`, start, end and the id of the response."""
    traces, span_ids, parents, *more = (list(chain.from_iterable(map(itemgetter(at), calls))) for at in range(2, 8))
    return [
        traces,
        list(map(add, traces, span_ids)),
        list(map(add if all(parents) else inside, traces, parents)),
        *more,
    ]


_TRACE_BYTES: Final = 16
_TOLD: Final = Taken()
"""Holds nothing: the calls of such a trace are known one by one."""
