"""Attribution of a block of code, and what it has cost so far: `with costspan.track(feature="search") as spent:`."""

from __future__ import annotations

import functools
import inspect
from copy import copy
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from opentelemetry.context import attach, detach

from costspan_processor.attribution import Totals, attributed, attributes_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator

    from opentelemetry.context import Context

P = ParamSpec("P")
R = TypeVar("R")


class track:  # noqa: N801  # reads as a statement
    """Marks every LLM call in a block, and adds up what they cost.

    As a context manager (`with`, `async with`) it yields the running totals: `.cost` (USD, Decimal), `.tokens`,
    `.calls`, `.unpriced`, `.breakdown` (by provider and model). As a decorator it marks the calls of a function,
    a coroutine function, or a generator of either kind. Blocks nest: the inner marks win, and every block around a
    call counts it. Whatever has no name below becomes a tag (`costspan.tag.<name>`).

    user, session, conversation, agent: who it is for (`user.id`, `session.id`, `gen_ai.conversation.id`,
        `gen_ai.agent.name`). On spans only; they are never sent to a provider.
    team, feature, task: whom it is booked on; labels of the metrics too.
    persona, priority, message: on spans only.

    >>> with track(feature="search") as spent:
    ...     pass
    >>> spent.cost, spent.calls
    (Decimal('0E-12'), 0)
    """

    def __init__(
        self,
        *,
        user: object = None,
        session: object = None,
        conversation: object = None,
        agent: object = None,
        team: object = None,
        feature: object = None,
        task: object = None,
        persona: object = None,
        priority: object = None,
        message: object = None,
        **tags: object,
    ) -> None:
        self._attributes = attributes_of(
            user=user,
            session=session,
            conversation=conversation,
            agent=agent,
            team=team,
            feature=feature,
            task=task,
            persona=persona,
            priority=priority,
            message=message,
            **tags,
        )
        self._tokens: list[Any] = []

    def _begin(self) -> tuple[Context, Totals]:
        """The context of one run through the block."""
        return attributed(self._attributes)

    def __enter__(self) -> Totals:
        context, totals = self._begin()
        self._tokens.append(attach(context))
        return totals

    def __exit__(self, *_: object) -> None:
        detach(self._tokens.pop())

    async def __aenter__(self) -> Totals:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        def block() -> track:
            again = copy(self)
            again._tokens = []
            return again

        wrapper: Any
        if inspect.iscoroutinefunction(function):

            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                with block():
                    return await function(*args, **kwargs)

            wrapper = coroutine

        elif inspect.isasyncgenfunction(function):

            async def async_steps(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                # The context must not stay attached across a yield, so each step has it for itself.
                context, _ = self._begin()
                steps = function(*args, **kwargs)
                while True:
                    token = attach(context)
                    try:
                        item = await anext(steps)
                    except StopAsyncIteration:
                        return
                    finally:
                        detach(token)
                    yield item

            wrapper = async_steps

        elif inspect.isgeneratorfunction(function):

            def steps_of(*args: Any, **kwargs: Any) -> Generator[Any, None, Any]:
                context, _ = self._begin()
                steps = function(*args, **kwargs)
                while True:
                    token = attach(context)
                    try:
                        item = next(steps)
                    except StopIteration as stop:
                        return stop.value
                    finally:
                        detach(token)
                    yield item

            wrapper = steps_of

        else:

            def plain(*args: Any, **kwargs: Any) -> Any:
                with block():
                    return function(*args, **kwargs)

            wrapper = plain

        return cast("Callable[P, R]", functools.wraps(function)(wrapper))
