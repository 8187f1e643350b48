"""How long an answer will be, learned from the answers that came."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Final

ASSUMED_OUTPUT_TOKENS: Final = 1024
"""Tokens of an answer of which nothing is known."""
LEARNED_FROM: Final = 20
"""Answers after which their lengths are believed."""
_KEPT: Final = 200
_KEYS: Final = 1000


class _Lengths:
    """The lengths of the last answers, and the one that 95 in 100 of them do not pass."""

    __slots__ = ("fresh", "last", "p95")

    def __init__(self) -> None:
        self.last: deque[int] = deque(maxlen=_KEPT)
        self.fresh = 0
        """How many have come since `p95` was worked out."""
        self.p95: int | None = None


class OutputLengths:
    """Tokens of the answers of each model to each task, as far as this process has seen them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str | None, str | None], _Lengths] = OrderedDict()

    def learn(self, model: str | None, task: str | None, tokens: int) -> None:
        """Note the length of an answer."""
        key = model, task
        lengths = self._known.get(key)
        if lengths is None:
            with self._lock:
                lengths = self._known.setdefault(key, _Lengths())
                if len(self._known) > _KEYS:
                    self._known.popitem(last=False)
        lengths.last.append(tokens)
        lengths.fresh += 1

    def expected(self, model: str | None, task: str | None, max_tokens: object) -> int:
        """The length to reserve for: of 95 in 100 answers once enough have come, never more than `max_tokens`.

        Before that `max_tokens`, and where the request does not say it 1,024.
        """
        most = max_tokens if isinstance(max_tokens, int) and max_tokens > 0 else None
        lengths = self._known.get((model, task))
        learned = None
        if lengths is not None:
            if lengths.fresh >= LEARNED_FROM:
                lengths.fresh = 0
                ordered = sorted(lengths.last.copy())
                lengths.p95 = ordered[-(-len(ordered) * 95 // 100) - 1]
            learned = lengths.p95
        if learned is None:
            return ASSUMED_OUTPUT_TOKENS if most is None else most
        return learned if most is None else min(most, learned)

    def after_fork(self) -> None:
        """In a forked child: a lock that no thread of the parent can be holding."""
        self._lock = threading.Lock()
