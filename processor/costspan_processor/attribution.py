"""Who a call is for, and what has been spent inside a block of code.

Attribution travels as a private value of the OpenTelemetry context: it follows tasks and threads as the current span
does, and it never leaves the process. The same `attribution(context)` serves the guard before a call, the metrics after
it and the span processor, since an unsampled call reaches no span processor.
"""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from opentelemetry import context as otel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context

_CONTEXT_KEY = otel.create_key("costspan-attribution")
_current = otel.get_current

KEYS: Final[Mapping[str, str]] = {
    "user": "user.id",
    "session": "session.id",
    "conversation": "gen_ai.conversation.id",
    "agent": "gen_ai.agent.name",
    "team": "costspan.team",
    "feature": "costspan.feature",
    "task": "costspan.task",
    "persona": "costspan.persona",
    "priority": "costspan.priority",
    "message": "costspan.message.id",
}
"""What a user calls it -> the span attribute that carries it."""


def dollars(pico: int) -> Decimal:
    """Exact USD of an amount in picodollars."""
    return Decimal(pico).scaleb(-12)


def attributes_of(**named: object) -> dict[str, str]:
    """Attributes for names as a user gives them: `team="search"` -> `costspan.team`; any other name is a tag.

    None means "not said" and is left out.
    """
    return {KEYS.get(name, f"costspan.tag.{name}"): str(value) for name, value in named.items() if value is not None}


class Share(NamedTuple):
    """One line of a breakdown."""

    cost: Decimal
    """USD."""
    tokens: int
    calls: int


class Totals:
    """What the calls inside one block have cost so far. Exact, and safe to read from any thread."""

    __slots__ = ("_calls", "_lock", "_pico", "_shares", "_tokens", "_unpriced")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pico = self._tokens = self._calls = self._unpriced = 0
        self._shares: dict[tuple[str, str], list[int]] = {}

    def add(self, provider: str, model: str, pico: int | None, tokens: int) -> None:
        """Count one call: its cost in picodollars (None: it has no price) and its input and output tokens."""
        amount = pico or 0
        with self._lock:
            self._calls += 1
            self._pico += amount
            self._tokens += tokens
            if pico is None:
                self._unpriced += 1
            share = self._shares.get((provider, model))
            if share is None:
                share = self._shares[provider, model] = [0, 0, 0]
            share[0] += amount
            share[1] += tokens
            share[2] += 1

    @property
    def cost(self) -> Decimal:
        """USD of the calls that have a price (`unpriced` counts the others)."""
        return dollars(self._pico)

    @property
    def tokens(self) -> int:
        """Input and output tokens, cached and reasoning ones included."""
        return self._tokens

    @property
    def calls(self) -> int:
        """Calls that ended, whether they have a price or not."""
        return self._calls

    @property
    def unpriced(self) -> int:
        """Calls without a figure: `cost` does not contain them."""
        return self._unpriced

    @property
    def breakdown(self) -> dict[tuple[str, str], Share]:
        """The same by (provider, model); the model is the one that answered, else the one asked for."""
        with self._lock:
            return {key: Share(dollars(pico), tokens, calls) for key, (pico, tokens, calls) in self._shares.items()}


class Attribution:
    """Attributes of everything that happens inside a block, and the running totals that its calls are added to."""

    __slots__ = ("_found", "attributes", "totals")

    def __init__(self, attributes: Mapping[str, str], totals: tuple[Totals, ...] = ()) -> None:
        self.attributes: Final = attributes
        self.totals: Final = totals
        self._found: tuple[tuple[str, ...], tuple[str | None, ...] | None] | None = None

    def values(self, keys: tuple[str, ...]) -> tuple[str | None, ...] | None:
        """The values under `keys`, None if there is none of them. Worked out once per block, not per call."""
        found = self._found
        if found is None or found[0] is not keys:
            values = tuple(map(self.attributes.get, keys))
            found = self._found = (keys, values if any(value is not None for value in values) else None)
        return found[1]


def attribution(context: Context | None = None) -> Attribution | None:
    """The attribution in `context`, by default the current one."""
    # `get_value` does the same with one more call, and this runs for every span of the process.
    found: Attribution | None = (_current() if context is None else context).get(_CONTEXT_KEY)  # type: ignore[assignment]
    return found


def attributed(attributes: Mapping[str, str], context: Context | None = None) -> tuple[Context, Totals]:
    """A context in which calls carry `attributes` over those of the surrounding block, and the totals they add up to.

    The totals of the surrounding blocks go on counting too.
    """
    outer = attribution(context)
    totals = Totals()
    if outer is None:
        inner = Attribution(dict(attributes), (totals,))
    else:
        inner = Attribution({**outer.attributes, **attributes}, (*outer.totals, totals))
    return otel.set_value(_CONTEXT_KEY, inner, context), totals
