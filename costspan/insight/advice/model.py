"""What an advice says, and from when on it is given."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

Category = Literal[
    "cheaper_model",
    "prompt_caching",
    "batch",
    "response_cache",
    "context",
    "waste",
    "provider",
    "peak_hours",
    "cost_per_user",
]
Level = Literal["high", "medium", "low"]

MONTH: Final = Decimal("30.4375")
"""Days of a month, as savings per month have it: 365.25 / 12."""


@dataclass(frozen=True)
class Thresholds:
    """From when on something is worth an advice. The defaults of reuse, queue, peak and users are those of practice."""

    days: int = 3
    """Days that the ledger must know of."""
    calls: int = 20
    """Calls that an advice rests on at least."""
    saving: Decimal = Decimal(1)
    """USD a month; less is not worth the reading."""
    high: float = 0.1
    """Share of the month's cost from which an advice is of high priority."""
    medium: float = 0.02
    reuse_1h: float = 0.7
    """Share of calls whose prefix was sent within the hour before, above which it is kept for an hour."""
    reuse_5m: float = 0.3
    """The same for five minutes."""
    prefix_tokens: int = 1024
    """Tokens that a prefix needs to be cached: the least of the limits in the providers' guides."""
    queued: float = 5
    """Calls a day that can wait, from which a batch of them is worth it."""
    urgency: float = 0.3
    """Below this a call can wait: see `URGENCY`."""
    cached_hours: int = 24
    """How long an answer is kept by a response cache."""
    oversized: float = 4
    """How many times the task's usual input is too much."""
    turns: int = 20
    """Turns of a conversation that are sent again in full."""
    wasted: float = 0.01
    """Share of the cost of a model's task that is wasted."""
    peak: float = 0.5
    """Share of the cost in a quarter of the day's hours, above which there is a peak."""
    per_user: Decimal = Decimal("0.10")
    """USD for a user and day on which the user is active."""
    cheaper: float = 0.05
    """Share of the price by which another model or provider must be cheaper."""


URGENCY: Final[Mapping[str, float]] = {"critical": 1.0, "high": 0.8, "normal": 0.5, "low": 0.2, "batch": 0.0}
"""Of the priorities that calls are tracked with; a call without one is `normal`."""


class Step(NamedTuple):
    """A line of arithmetic: ``how`` gives ``result``, in ``unit``; + - * / and numbers alone, so that it can be redone.

    The last step of an advice gives its savings per month.
    """

    what: str
    how: str
    result: Decimal
    unit: str


class Savings(NamedTuple):
    """USD a month. ``low`` and ``high`` hold it in 80 of 100 months like the days seen; None: too few days to say."""

    expected: Decimal
    low: Decimal | None
    high: Decimal | None


@dataclass(frozen=True)
class Advice:
    """Something that would cost less, and what shows it."""

    id: str
    """Of category and subject: the same advice is the same tomorrow."""
    category: Category
    subject: Mapping[str, str]
    """What it is about: provider, model, task, prefix, ..."""
    priority: Level
    title: str
    calls: int
    """Calls of the stretch that it rests on."""
    share: float
    """Their share of all calls of the stretch."""
    examples: tuple[str, ...]
    """Ids of some of them; none where totals were enough."""
    savings: Savings | None
    """None: a notice, which says what is, and no figure."""
    steps: tuple[Step, ...]
    assumes: str
    """What has to hold for the savings to come."""
    effort: Level
    actions: tuple[str, ...]
    excludes: tuple[str, ...] = ()
    """Ids of advice for the same calls: the savings of both do not add up."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; amounts as decimal text."""
        found = asdict(self)
        found["savings"] = None if self.savings is None else {k: _text(v) for k, v in self.savings._asdict().items()}
        found["steps"] = [{**step._asdict(), "result": _text(step.result)} for step in self.steps]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Advice:
        """What `as_dict` gave. Raises ``KeyError`` or ``TypeError`` for anything else."""
        known: dict[str, Any] = {field.name: found[field.name] for field in fields(cls)}
        if known["savings"] is not None:
            said: dict[str, Any] = known["savings"]
            known["savings"] = Savings(*(_amount(said[name]) for name in Savings._fields))
        known["steps"] = tuple(Step(**{**step, "result": Decimal(step["result"])}) for step in known["steps"])
        known |= {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return cls(**known)


def advice_id(category: str, subject: Mapping[str, str]) -> str:
    """Stable over runs and machines.

    >>> advice_id("batch", {"task": "report", "model": "gpt-4.1"})
    'batch-49197e3d9e'
    """
    name = "\0".join([category, *(f"{key}={subject[key]}" for key in sorted(subject))])
    return f"{category.replace('_', '-')}-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


def _amount(text: str | None) -> Any:
    return None if text is None else Decimal(text)


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"
