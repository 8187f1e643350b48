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
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Final

from costspan_processor.dialects import INPUT, OUTPUT

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

Counts = tuple[int | None, int | None]
"""Tokens in and out."""

_FOR_EVER: Final = float("inf")
_COMPARED: Final = 256
"""Calls that used the same, of which a span may repeat one: no more of them are remembered."""

_Lately = list[Any]
"""The scope of calls, None if they have several, then of each of them, the latest last: scope, start, end.

One list that grows, since whatever is made for each call is looked at by the garbage collector."""


def counts_of(attributes: Mapping[str, Any]) -> Counts:
    """The counts of a span that carries its price, in the words of the conventions."""
    sent, received = attributes.get(INPUT), attributes.get(OUTPUT)
    return sent if type(sent) is int else None, received if type(received) is int else None


Told = tuple[Any, Any, str, int, int, "Hashable"]
"""A span that tells of a call: its id and that of what it is inside (None or empty: of nothing), the scope, start and
end, and the process that it is of, where there are several. In a process ids are integers, on the wire bytes; times are
unix nanoseconds."""


class Once:
    """What has been counted, by the spans that it happened in and by the ids of the responses.

    `at_most` spans and ids of responses are remembered, and never less than the last half of them, since a trace that
    is longer ago is over. A span that ends is compared with the calls that used the same lately, of `lately` counts.
    """

    __slots__ = ("_at_most", "_calls", "_lately", "_lately_at_most", "_lock", "_responses", "above")

    def __init__(self, at_most: int = 8192, lately: int = 128) -> None:
        self._at_most = at_most
        self._lately_at_most = lately
        # Dicts for their order: the oldest go first.
        self.above: dict[Any, None] = {}
        """Spans that end later than a call below them."""
        self._calls: dict[Any, float] = {}
        """Spans whose calls are counted, and when they end: what happens in them until then repeats it."""
        self._responses: dict[Hashable, None] = {}
        self._lately: dict[tuple[Hashable, int | None, int | None], _Lately] = {}
        """By process and counts: the calls that used those."""
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
        _, parent_id, scope, start, end, process = told
        if start < self._calls.get(parent_id, start):
            return True
        if response_id and isinstance(response_id, str) and response_id in self._responses:
            return True
        calls = self._lately.get((process, *counts))
        # A library does not repeat itself.
        if calls is None or calls[0] == scope:
            return False
        with self._lock:
            each = zip(count(1, 3), calls[1::3], calls[2::3], calls[3::3], strict=False)
            within = [
                (its_start, -its_end, its_scope, at)
                for at, its_scope, its_start, its_end in each
                if start <= its_start and its_end <= end and its_scope != scope
            ]
            if within:
                # One call is repeated once: the one that fewest others can repeat, whatever the order they came in.
                *_, at = min(within)
                del calls[at : at + 3]
                scopes = set(calls[1::3])
                calls[0] = scopes.pop() if len(scopes) == 1 else None
                return True
        return False

    def counted(self, told: Told, response_id: object, counts: Counts, links: dict[Any, Any] | None = None) -> None:
        """A span's call has been counted. `links` as in `ends`."""
        span_id, parent_id, scope, start, end, process = told
        with self._lock:
            # As `_remember`, for each call comes by here.
            known, at_most = self._calls, self._at_most
            known[span_id] = end
            if len(known) > at_most:
                forget_half(known)
            if parent_id:
                above = self.above
                above[parent_id] = None
                if len(above) > at_most:
                    forget_half(above)
                if links and parent_id in links:
                    self._rise(parent_id, links)
            if response_id and isinstance(response_id, str):
                responses = self._responses
                responses[response_id] = None
                if len(responses) > at_most:
                    forget_half(responses)
            self._used((process, *counts), scope, start, end)

    def _used(self, key: tuple[Hashable, int | None, int | None], scope: str, start: int, end: int) -> None:
        _, sent, received = key
        if not sent and not received:
            return
        lately = self._lately
        calls = lately.get(key)
        if calls is None or len(calls) > 3 * _COMPARED:
            lately[key] = [scope, scope, start, end]
            if len(lately) > self._lately_at_most:
                forget_half(lately)
            return
        if calls[0] != scope:
            calls[0] = None if len(calls) > 1 else scope
        calls += scope, start, end

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
