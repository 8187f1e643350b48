"""Counting once: which of the spans that tell of one call to a model carries its money.

A framework's span contains the SDK's, an agent's contains its calls', and several libraries may have patched one SDK.
The innermost span that tells of usage is the call; what contains it repeats it. Inner spans end first, so whatever has
been counted is noted at the span above it, and moves up as the spans end. A call of our own is noted when it starts.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Span

_AT_MOST: Final = 8192
"""Spans, and ids of responses, that are remembered: a trace that is longer ago is over."""


class Once:
    """What has been counted, by the spans that it happened in and by the ids of the responses."""

    __slots__ = ("_above", "_lock", "_ours", "_responses")

    def __init__(self) -> None:
        # Dicts for their order: the oldest go first.
        self._above: dict[int, None] = {}
        self._ours: dict[int, None] = {}
        self._responses: dict[str, None] = {}
        self._lock = threading.Lock()

    def ours_starts(self, span: Span) -> None:
        """A call of our own instrumentation, which counts it whatever else tells of it."""
        with self._lock:
            _remember(self._ours, span.context.span_id)
            if span.parent is not None:
                _remember(self._above, span.parent.span_id)

    def ends(self, span: Span) -> bool:
        """Whether a call was counted below a span that ends; if so, it is below the one above it too."""
        if not self._above or span.context.span_id not in self._above:
            return False
        with self._lock:
            self._above.pop(span.context.span_id, None)
            if span.parent is not None:
                _remember(self._above, span.parent.span_id)
        return True

    def repeats(self, span: Span, response_id: object) -> bool:
        """Whether a span tells of a call that is counted elsewhere: the one it is part of, or the same response's."""
        inside = span.parent is not None and span.parent.span_id in self._ours
        return inside or (isinstance(response_id, str) and response_id in self._responses)

    def counted(self, span: Span, response_id: object) -> None:
        """A span's call has been counted."""
        with self._lock:
            if span.parent is not None:
                _remember(self._above, span.parent.span_id)
            if isinstance(response_id, str):
                _remember(self._responses, response_id)


def _remember(known: dict[Any, None], key: int | str) -> None:
    known[key] = None
    if len(known) > _AT_MOST:
        del known[next(iter(known))]
