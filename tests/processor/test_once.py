"""Several spans tell of one call: one of them carries its money, the others say that they repeat it."""

from __future__ import annotations

from itertools import permutations
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace

from costspan_processor.metrics import SCOPE as OUR_SCOPE
from costspan_processor.once import Once
from tests.processor.conftest import CHAT, Telemetry

if TYPE_CHECKING:
    from opentelemetry.trace import Span

MONEY = 0.0016
AGENT = {**CHAT, "gen_ai.operation.name": "invoke_agent"}
PRICED = {"costspan.cost.status": "priced", "costspan.cost.total": MONEY}


def begin(shop: Telemetry, scope: str, attributes: dict[str, Any] | None, inside: Span | None = None) -> Span:
    context = None if inside is None else trace.set_span_in_context(inside)
    tracer = shop.tracer_provider.get_tracer(scope)
    return tracer.start_span(scope, context, attributes=CHAT if attributes is None else attributes)


def money(shop: Telemetry) -> dict[str, str | float]:
    """What each span says by its name: dollars, `rollup`, or nothing."""
    told: dict[str, str | float] = {}
    for span in shop.spans.get_finished_spans():
        attributes: Any = span.attributes or {}
        told[span.name] = "rollup" if attributes.get("costspan.rollup") else attributes.get("costspan.cost.total", "")
    return told


def counted(shop: Telemetry) -> float:
    return float(sum(shop.metrics().get("costspan.cost", {}).values()))


def test_the_innermost_span_is_the_call(shop: Telemetry) -> None:
    outer = begin(shop, "framework", None)
    middle = begin(shop, "http", {"url.path": "/"}, outer)
    begin(shop, "sdk", None, middle).end()
    middle.end()
    outer.end()
    assert money(shop) == {"sdk": MONEY, "http": "", "framework": "rollup"}
    assert counted(shop) == pytest.approx(MONEY)


def test_a_span_inside_a_call_of_ours_repeats_it_even_if_it_outlives_it(shop: Telemetry) -> None:
    ours = begin(shop, OUR_SCOPE, {**CHAT, **PRICED})
    early, late = (begin(shop, name, None, ours) for name in ("early", "late"))
    early.end()
    ours.end()
    late.end()
    assert money(shop) == {"early": "rollup", OUR_SCOPE: MONEY, "late": "rollup"}


def test_a_span_around_a_call_of_ours_repeats_it_even_if_it_ends_first(shop: Telemetry) -> None:
    outer = begin(shop, "framework", None)
    ours = begin(shop, OUR_SCOPE, {**CHAT, **PRICED}, outer)
    outer.end()
    ours.end()
    assert money(shop) == {"framework": "rollup", OUR_SCOPE: MONEY}


def test_two_spans_of_one_response_are_one_call(shop: Telemetry) -> None:
    for name in ("first", "second"):
        begin(shop, name, {**CHAT, "gen_ai.response.id": "chatcmpl-1"}).end()
    begin(shop, "another", {**CHAT, "gen_ai.response.id": "chatcmpl-2"}).end()
    assert money(shop) == {"first": MONEY, "second": "rollup", "another": MONEY}


def test_calls_whose_response_has_an_empty_id_are_not_one_call(shop: Telemetry) -> None:
    for name in ("first", "second"):
        begin(shop, name, {**CHAT, "gen_ai.response.id": ""}).end()
    assert money(shop) == {"first": MONEY, "second": MONEY}


def test_an_agent_is_priced_only_where_nobody_saw_its_calls(shop: Telemetry) -> None:
    begin(shop, "alone", AGENT).end()
    agent = begin(shop, "agent", AGENT)
    begin(shop, "call", None, agent).end()
    agent.end()
    begin(shop, "idle", {"gen_ai.operation.name": "invoke_agent", "gen_ai.provider.name": "acme"}).end()
    assert money(shop) == {"alone": MONEY, "call": MONEY, "agent": "", "idle": ""}


def test_calls_side_by_side_in_one_agent_are_all_counted(shop: Telemetry) -> None:
    agent = begin(shop, "agent", AGENT)
    for name in ("one", "two"):
        begin(shop, name, None, agent).end()
    agent.end()
    assert counted(shop) == pytest.approx(2 * MONEY)


def test_a_call_that_failed_below_leaves_the_bill_to_the_span_that_has_one(shop: Telemetry) -> None:
    outer = begin(shop, "framework", None)
    failed = {key: value for key, value in CHAT.items() if ".usage." not in key}
    begin(shop, "sdk", {**failed, "error.type": "Timeout"}, outer).end()
    outer.end()
    assert money(shop) == {"sdk": "", "framework": MONEY}


def test_what_was_counted_last_is_remembered_and_never_more_than_is_allowed() -> None:
    once = Once(at_most=100, lately=100)
    for number in range(1000):
        told = number, 1_000_000 + number, "sdk", number, number, None
        assert not once.repeats(told, f"response-{number}", (number + 1, 1))
        once.counted(told, f"response-{number}", (number + 1, 1))
        assert len(once.above) <= 100
    inside = [once.repeats((-1, number, "http", -1, 1, None), None, (None, None)) for number in range(1000)]
    assert all(inside[-50:])
    assert not any(inside[:900])


nested = st.lists(st.integers(0, 20), min_size=4, max_size=4).map(sorted)


@given(st.lists(nested, min_size=1, max_size=8).flatmap(st.permutations))
def test_spans_that_overlap_each_repeat_the_call_within_them(times: list[list[int]]) -> None:
    """A library that does not make its span the current one, around calls that all used the same."""
    once = Once()
    calls = [(end, 0, start) for _, start, end, _ in times]
    around = [(end, 1, start) for start, _, _, end in times]
    repeated = []
    for end, outer, start in sorted([*calls, *around], key=itemgetter(0, 1)):
        told = object(), None, "framework" if outer else "sdk", start, end, None
        if outer:
            repeated.append(once.repeats(told, None, (10, 5)))
        else:
            once.counted(told, None, (10, 5))
    assert all(repeated)


def test_which_call_a_span_repeats_does_not_depend_on_the_order_in_which_they_came() -> None:
    for calls in permutations([(0, 4), (0, 5), (2, 3)]):
        once = Once()
        for start, end in calls:
            once.counted((object(), None, "sdk", start, end, None), None, (10, 5))
        around = [(0, 5), (0, 4), (1, 3)]
        assert [
            once.repeats((object(), None, "framework", start, end, None), None, (10, 5)) for start, end in around
        ] == [True, True, True]
