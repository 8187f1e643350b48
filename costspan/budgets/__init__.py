"""Budgets as an application uses them: a limit on a block of code, a question before a call, the model to choose."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

from costspan.tracking import track
from costspan_processor import conventions
from costspan_processor.attribution import Attribution, Totals, attributed, attributes_of, attribution
from costspan_processor.budgets import Budget, Check, Guard
from costspan_processor.budgets.guard import CHARACTERS_PER_TOKEN, block

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context

    from costspan_processor.budgets.routing import Route


class budget(track):  # noqa: N801  # reads as a statement
    """Limits what the LLM calls in a block may cost: the one that would pass the limit raises `BudgetExceeded`.

    name: what the exception, spans and metrics call it. limit: USD above 0, for each run through the block.

    As a context manager or decorator, as `costspan.track()`; it yields the same running totals, with `.limit` and
    `.remaining`. Blocks nest: a call must have room in all of them, and in the budgets of the process.
    Raises ValueError for a limit that makes no sense.

    >>> with budget("agent run", limit="0.10") as spent:
    ...     pass
    >>> spent.remaining.normalize()
    Decimal('0.1')
    """

    def __init__(self, name: str, limit: Decimal | str | float) -> None:
        super().__init__()
        self._budget: Final = Budget(name, limit, policy="block")

    def _begin(self) -> tuple[Context, Totals]:
        return attributed({}, limit=block(self._budget))


def check(
    model: str,
    *,
    input_tokens: int = 0,
    max_tokens: int | None = None,
    operation: str = "chat",
    **attributed_to: object,
) -> Check:
    """What the budgets would say to a call, without making it. May ask the budgets' store.

    model: `provider/model`, as a span names them. input_tokens: of the prompt. max_tokens: of the answer at most.
    attributed_to: as `costspan.track()`, beside what the surrounding blocks say.

    Returns `.allowed`, `.decision` (`allowed`, `warned`, `downgraded`, `refused`, `bypassed`), `.budget`, `.asked` and
    `.remaining` (USD), `.model` (what would be called) and `.reason`. Before `init()` everything is allowed.
    Raises ValueError for a model without its provider.
    """
    provider, sign, name = model.partition("/")
    if not sign or not provider or not name:
        raise ValueError(f"model is a provider and a model, such as 'openai/gpt-4.1', not {model!r}")
    guard = _guard_of_process()
    attributes = {conventions.OPERATION: operation, conventions.PROVIDER: provider, conventions.REQUEST_MODEL: name}
    if guard is None:
        return Check(True, "allowed", None, None, None, name, "costspan.init() has not been called")
    asked = attributes if max_tokens is None else {**attributes, conventions.MAX_TOKENS: max_tokens}
    return guard.check(asked, _who(attributed_to), input_tokens * CHARACTERS_PER_TOKEN)


def route(
    task: str,
    *,
    complexity: str | None = None,
    quality: str | None = None,
    urgency: str | None = None,
    model: str | None = None,
) -> Route:
    """The model to call for a task, by what the budgets have left: `provider, model, reason`. Ask before the client.

    task: one that the configuration's `[routing.tasks]` names. complexity: `low`, `medium`, `high`. quality: `basic`,
    `standard`, `high`, `best`; by default the task's. urgency: `low`, `normal`, `high`. model: `provider/model` that is
    wanted; it is only replaced by a cheaper one of its path.

    The budgets are those of the surrounding `costspan.track()`. Raises ValueError for words that the configuration does
    not know, RuntimeError if there is no routing.
    """
    guard = _guard_of_process()
    if guard is None or guard.routing is None:
        raise RuntimeError(
            "there is no routing: put [routing] into costspan.toml (docs/budgets.md) and call costspan.init()"
        )
    remaining, emergency = guard.remaining(attribution(), {})
    return guard.routing.route(task, complexity, quality, urgency, model, remaining, emergency)


def _guard_of_process() -> Guard | None:
    from costspan import startup

    return None if startup._processing is None else startup._processing.guard


def _who(named: Mapping[str, object]) -> Attribution | None:
    who = attribution()
    marks = attributes_of(**named)
    if not marks:
        return who
    if who is None:
        return Attribution(marks)
    return Attribution({**who.attributes, **marks}, who.totals, who.received.difference(marks), who.limits)
