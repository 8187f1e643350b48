"""Runs the conversation under costspan and keeps what costspan says of each call.

Every figure comes from costspan: amounts from `costspan.track()`, counts and names from the spans that an exporter
would get.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

import costspan
from costspan_processor import Totals

from .conversation import Conversation
from .script import AUDITOR, TURNS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.trace import ReadableSpan

    from .display import Stage
    from .provider import DemoProvider
    from .script import Turn


@dataclass(frozen=True)
class Call:
    """One call, as costspan saw it. Tokens; `input` contains `cached`. `cost` is USD, None where it has no price."""

    turn: Turn
    provider: str
    model: str
    input: int
    cached: int
    output: int
    cost: Decimal | None
    refusal: costspan.BudgetExceeded | None = None


class _Spans(SpanProcessor):
    """Keeps ended spans until they are asked for."""

    def __init__(self) -> None:
        self._ended: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self._ended.append(span)

    def take(self) -> dict[str, Any]:
        """The attributes of the model call that ended since the last time; empty if there was none."""
        ended, self._ended = self._ended, []
        calls = (dict(span.attributes or {}) for span in ended)
        handled = {"costspan.cost.status", "costspan.budget.status"}
        return next((attributes for attributes in calls if handled & attributes.keys()), {})


class _Alerts(logging.Handler):
    """Keeps what costspan logs, which would otherwise be written across the display."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


class Session:
    """One conversation under a budget, and what it has cost so far. Starts costspan for the process."""

    def __init__(self, readers: Sequence[MetricReader] = ()) -> None:
        self.calls: list[Call] = []
        self.name = f"demo-{uuid.uuid4().hex[:8]}"
        self.budget = costspan.Budget(
            "session",
            Decimal("0.05"),
            scope={"conversation": self.name},
            period="day",
            thresholds=(50, 80),
            policy="block",
        )
        self.totals = Totals()
        self._spans = _Spans()
        self._alerts = _Alerts()
        # Samplers and exporters of the environment are for programs, not for a demo of one.
        traces = TracerProvider(sampler=ALWAYS_ON)
        traces.add_span_processor(self._spans)
        metrics = MeterProvider(metric_readers=list(readers))
        costspan.init(tracer_provider=traces, meter_provider=metrics, budgets=[self.budget])

    @property
    def alerts(self) -> list[str]:
        """What costspan has warned of so far."""
        return self._alerts.messages

    @property
    def refusal(self) -> costspan.BudgetExceeded | None:
        """The budget's refusal, once it has come."""
        return next((call.refusal for call in self.calls if call.refusal is not None), None)

    def play(self, provider: DemoProvider, stage: Stage) -> None:
        """Hold the whole conversation once, with the provider SDKs loaded."""
        log = logging.getLogger("costspan")
        log.addHandler(self._alerts)
        try:
            conversation = Conversation(provider)
            with costspan.track(conversation=self.name) as self.totals:
                for turn in TURNS:
                    with stage.speaking(turn):
                        self.calls.append(self._take(turn, conversation, stage.hear))
        finally:
            log.removeHandler(self._alerts)

    def replay(self, provider: DemoProvider) -> None:
        """Hold the conversation again, outside of the budget and without the call that it refuses."""
        conversation = Conversation(provider)
        with costspan.track(conversation=f"demo-{uuid.uuid4().hex[:8]}"):
            for turn in TURNS:
                if turn.persona is not AUDITOR:
                    self._take(turn, conversation, str)

    def _take(self, turn: Turn, conversation: Conversation, hear: Callable[[str], object]) -> Call:
        refusal = None
        with costspan.track(persona=turn.persona.name, feature=turn.persona.feature) as spent:
            try:
                for text in conversation.take(turn):
                    hear(text)
            except costspan.BudgetExceeded as error:
                refusal = error
        seen = self._spans.take()
        return Call(
            turn,
            seen.get("gen_ai.provider.name", "unknown"),
            seen.get("gen_ai.response.model") or turn.persona.model,
            seen.get("gen_ai.usage.input_tokens", 0),
            seen.get("gen_ai.usage.cache_read.input_tokens", 0),
            seen.get("gen_ai.usage.output_tokens", 0),
            None if spent.unpriced or not spent.calls else spent.cost,
            refusal,
        )
