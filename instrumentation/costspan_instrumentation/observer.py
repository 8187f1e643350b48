"""The only door between instrumentation and what is built on it: who watches the calls, and may stop one.

Both sides share attribute names, never a Python type: an observer is anything of this shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from opentelemetry.context import Context
from opentelemetry.util.types import AttributeValue


class Decision(Protocol):
    """What an observer says before a call."""

    @property
    def token(self) -> object:
        """Given back to `after`, unread."""

    @property
    def refuse(self) -> BaseException | None:
        """Raised for the application in place of the call."""

    @property
    def overrides(self) -> Mapping[str, object] | None:
        """Arguments of the call to replace, such as another model."""

    @property
    def attributes(self) -> Mapping[str, AttributeValue]:
        """Attributes that the call's span starts with."""
        ...


class Observer(Protocol):
    """Sees every call. What a method raises is swallowed and goes to `failed`; only `Decision.refuse` reaches users."""

    def before(
        self, attributes: Mapping[str, Any], characters: Callable[[], int], may_swap: Callable[[], bool]
    ) -> Decision | None:
        """Asked before the call.

        attributes: those of its request. characters: counts the prompt's characters. may_swap: whether the argument
        `model` of the call can be overridden.
        """

    async def abefore(
        self, attributes: Mapping[str, Any], characters: Callable[[], int], may_swap: Callable[[], bool]
    ) -> Decision | None:
        """`before` of an asynchronous call."""

    def after(
        self,
        token: object,
        attributes: Mapping[str, Any],
        at: int,
        duration: float,
        first_chunk: float | None,
        context: Context | None,
    ) -> Mapping[str, AttributeValue]:
        """Told when the call has ended, before its span ends; returns attributes to add to the span.

        attributes: all that is known of the call, `error.type` of a failed one included.
        at: start of the call, nanoseconds since the epoch. duration, first_chunk: seconds since then.
        context: the context of the call's span, for exemplars.
        """
        ...

    def failed(self, where: str, error: BaseException) -> None:
        """An internal error at `where`, to be counted and logged once."""
