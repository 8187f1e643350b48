"""Counting once: which of the spans that tell of one call to a model carries its money.

A framework's span contains the SDK's, an agent's contains its calls', and several libraries may have patched one SDK.
The innermost span that tells of usage is the call; what contains it repeats it. Inner spans end first, so whatever has
been counted is noted at the span above it, and moves up as the spans end. A call of our own is noted when it starts.

Some libraries do not make their span the current one (OpenInference's for LangChain): it is then no ancestor of what
happens in it. What it repeats is known by the counts, and by having happened while it lasted.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Span

Counts = tuple[object, object]

_AT_MOST: Final = 8192
"""Spans, and ids of responses, that are remembered: a trace that is longer ago is over."""
_LATELY_AT_MOST: Final = 128
"""Calls that are compared with a span that ends: those of many concurrent requests."""


class Once:
    """What has been counted, by the spans that it happened in and by the ids of the responses."""

    __slots__ = ("_lately", "_lock", "_ours", "_responses", "above")

    def __init__(self) -> None:
        # Dicts for their order: the oldest go first.
        self.above: dict[int, None] = {}
        """Spans that end later than a call below them."""
        self._ours: dict[int, None] = {}
        self._responses: dict[str, None] = {}
        self._lately: dict[tuple[str, int, Counts], int] = {}
        self._lock = threading.Lock()

    def ours_starts(self, span: Span) -> None:
        """A call of our own instrumentation, which counts it whatever else tells of it."""
        with self._lock:
            _remember(self._ours, span.get_span_context().span_id)
            if span.parent is not None:
                _remember(self.above, span.parent.span_id)

    def ends(self, span: Span) -> bool:
        """Whether a call was counted below a span that ends; if so, it is below the one above it too."""
        if span.get_span_context().span_id not in self.above:
            return False
        with self._lock:
            self.above.pop(span.get_span_context().span_id, None)
            if span.parent is not None:
                _remember(self.above, span.parent.span_id)
        return True

    def repeats(self, span: Span, response_id: object, counts: Counts) -> bool:
        """Whether a span tells of a call that is counted elsewhere.

        The call that the span is part of, the one with the same response, or one of another library that happened
        within the span and used the same.
        """
        if span.parent is not None and span.parent.span_id in self._ours:
            return True
        if isinstance(response_id, str) and response_id in self._responses:
            return True
        start, end = span.start_time or 0, span.end_time or 0
        with self._lock:
            for known, ended in reversed(self._lately.items()):
                scope, started, used = known
                if used == counts and start <= started and ended <= end and scope != _scope(span):
                    # One call is repeated once.
                    del self._lately[known]
                    return True
        return False

    def counted(self, span: Span, response_id: object, counts: Counts) -> None:
        """A span's call has been counted: `counts` are its tokens, in and out."""
        with self._lock:
            if span.parent is not None:
                _remember(self.above, span.parent.span_id)
            if isinstance(response_id, str):
                _remember(self._responses, response_id)
            if any(counts):
                self._lately[_scope(span), span.start_time or 0, counts] = span.end_time or 0
                if len(self._lately) > _LATELY_AT_MOST:
                    del self._lately[next(iter(self._lately))]


def _scope(span: Span) -> str:
    return span.instrumentation_scope.name if span.instrumentation_scope is not None else ""


def _remember(known: dict[Any, None], key: int | str) -> None:
    known[key] = None
    if len(known) > _AT_MOST:
        del known[next(iter(known))]
