"""Counting once: which of the spans that tell of one call to a model carries its money.

A framework's span contains the SDK's, an agent's contains its calls', and several libraries may have patched one SDK.
The innermost span that tells of usage is the call; what contains it repeats it. Inner spans end first, so whatever has
been counted is noted at the span above it, and moves up as the spans end. A call of our own is noted when it starts.

Some libraries do not make their span the current one (OpenInference's for LangChain): it is then no ancestor of what
happens in it. What it repeats is known by the counts, and by having happened while it lasted.

The span processor asks this of the spans of its process, the collector of those that it is sent, in whatever order.
"""

from __future__ import annotations

import threading
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from costspan_processor.dialects import INPUT, OUTPUT

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

Counts = tuple[int | None, int | None]
"""Tokens in and out."""

_FOR_EVER: Final = float("inf")


def counts_of(attributes: Mapping[str, Any]) -> Counts:
    """The counts of a span that carries its price, in the words of the conventions."""
    sent, received = attributes.get(INPUT), attributes.get(OUTPUT)
    return sent if type(sent) is int else None, received if type(received) is int else None


class Told(NamedTuple):
    """A span that tells of a call. In a process ids are integers, on the wire bytes; times are unix nanoseconds."""

    span_id: Hashable
    parent_id: Hashable
    """None or empty: it is inside nothing."""
    scope: str
    start: int
    end: int
    process: Hashable = None
    """Of which the span is, where there are several."""


class Once:
    """What has been counted, by the spans that it happened in and by the ids of the responses.

    `at_most` spans and ids of responses are remembered, and never less than the last half of them, since a trace that
    is longer ago is over; `lately` calls are compared with a span that ends, which are those of many concurrent
    requests.
    """

    __slots__ = ("_at_most", "_calls", "_lately", "_lately_at_most", "_lock", "_order", "_responses", "above")

    def __init__(self, at_most: int = 8192, lately: int = 128) -> None:
        self._at_most = at_most
        self._lately_at_most = lately
        # Dicts for their order: the oldest go first.
        self.above: dict[Any, None] = {}
        """Spans that end later than a call below them."""
        self._calls: dict[Any, float] = {}
        """Spans whose calls are counted, and when they end: what happens in them until then repeats it."""
        self._responses: dict[Hashable, None] = {}
        self._lately: dict[tuple[Hashable, Counts], list[Told]] = {}
        self._order: deque[tuple[Hashable, Counts]] = deque()
        self._lock = threading.Lock()

    def ours_starts(self, span_id: Hashable, parent_id: Hashable) -> None:
        """A call of our own instrumentation, which counts it whatever else tells of it."""
        with self._lock:
            self._remember(self._calls, span_id, _FOR_EVER)
            if parent_id:
                self._remember(self.above, parent_id)

    def ends(self, span_id: Hashable, parent_id: Hashable, links: dict[Any, Any] | None = None) -> bool:
        """Whether a call was counted below a span that ends; if so, it is below the one above it too.

        `links`: spans that have passed by already, and may be above it.
        """
        if span_id not in self.above:
            return False
        with self._lock:
            self.above.pop(span_id, None)
            if parent_id:
                self._remember(self.above, parent_id)
                if links:
                    self._rise(parent_id, links)
        return True

    def pass_by(self, links: dict[Any, Any]) -> None:
        """Spans that tell of no call, but may stand between two that do: their ids, and those of what is above them."""
        with self._lock:
            for span_id in links.keys() & self.above.keys():
                self._rise(span_id, links)
            if not self._calls.keys().isdisjoint(links.values()):
                for span_id, parent_id in links.items():
                    if parent_id in self._calls:
                        self._remember(self._calls, span_id, self._calls[parent_id])

    def repeats(self, told: Told, response_id: object, counts: Counts) -> bool:
        """Whether a span tells of a call that is counted elsewhere.

        The call that the span is part of, the one with the same response, or one of another library that happened
        within the span and used the same.
        """
        if told.start < self._calls.get(told.parent_id, told.start):
            return True
        if isinstance(response_id, str) and response_id in self._responses:
            return True
        key = told.process, counts
        if key not in self._lately:
            return False
        with self._lock:
            same = self._lately.get(key, [])
            for known in reversed(same):
                if told.start <= known.start and known.end <= told.end and known.scope != told.scope:
                    # One call is repeated once.
                    same.remove(known)
                    self._order.remove(key)
                    if not same:
                        del self._lately[key]
                    return True
        return False

    def counted(self, told: Told, response_id: object, counts: Counts, links: dict[Any, Any] | None = None) -> None:
        """A span's call has been counted. `links` as in `ends`."""
        with self._lock:
            self._remember(self._calls, told.span_id, told.end)
            if told.parent_id:
                self._remember(self.above, told.parent_id)
                if links:
                    self._rise(told.parent_id, links)
            if isinstance(response_id, str):
                self._remember(self._responses, response_id)
            if any(counts):
                key = told.process, counts
                same = self._lately.get(key)
                if same is None:
                    self._lately[key] = [told]
                else:
                    same.append(told)
                self._order.append(key)
                if len(self._order) > self._lately_at_most:
                    oldest = self._order.popleft()
                    same = self._lately[oldest]
                    del same[0]
                    if not same:
                        del self._lately[oldest]

    def _rise(self, span_id: Hashable, links: dict[Any, Any]) -> None:
        # What lies above a span need be told once, and ids in a circle must not go round for ever.
        while (parent_id := links.pop(span_id, None)) is not None:
            self.above.pop(span_id, None)
            if parent_id:
                self._remember(self.above, parent_id)
            span_id = parent_id

    def _remember(self, known: dict[Any, Any], key: Hashable, value: object = None) -> None:
        known[key] = value
        if len(known) > self._at_most:
            forget_half(known)


def forget_half(known: dict[Any, Any]) -> None:
    """Forget what a dict has held longest.

    Half of it, since the oldest key of a dict is found by stepping over the places of all that have gone before it.
    """
    for key in list(islice(known, len(known) // 2)):
        del known[key]
