"""What a span says, and the dollars it must get."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costspan_pricing import PriceBook
from costspan_processor import enrich, price
from costspan_processor.conventions import Plain, Reading, read
from costspan_processor.enrich import assess, describe
from tests.processor.conftest import AT, CHAT


def without_cost_proposal(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if not key.startswith("gen_ai.usage.cost.")}


def test_a_chat_call_gets_its_price_and_where_it_comes_from(book: PriceBook) -> None:
    assert enrich(CHAT, AT, book) == {
        "costspan.cost.status": "priced",
        "costspan.cost.total": 0.0016,
        "costspan.cost.input": 0.0004,
        "costspan.cost.cache_read": 0.0004,
        "costspan.cost.output": 0.0008,
        "costspan.cost.cache_savings": 0.0012,
        "costspan.price.book": book.version,
        "costspan.price.source": "",
        "gen_ai.usage.cost.amount": 0.0016,
        "gen_ai.usage.cost.currency": "USD",
        "gen_ai.usage.cost.source": "local",
    }


def test_the_proposed_attributes_can_be_left_out(book: PriceBook) -> None:
    with_them, without = enrich(CHAT, AT, book), enrich(CHAT, AT, book, proposal=False)
    assert without == without_cost_proposal(with_them)


def test_the_status_comes_first_and_the_total_second(book: PriceBook) -> None:
    assert list(enrich(CHAT, AT, book))[:2] == ["costspan.cost.status", "costspan.cost.total"]


def test_a_priced_span_is_never_priced_again(book: PriceBook) -> None:
    assert enrich({**CHAT, "costspan.cost.status": "unknown_model"}, AT, book) == {}


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"http.request.method": "GET"},
        {**CHAT, "gen_ai.operation.name": "invoke_agent"},
        {**CHAT, "gen_ai.operation.name": "execute_tool"},
        {**CHAT, "gen_ai.operation.name": "fetch_response"},
    ],
)
def test_a_span_that_carries_no_bill_is_left_alone(attributes: dict[str, Any], book: PriceBook) -> None:
    assert enrich(attributes, AT, book) == {}
    assert price(attributes, AT, book) is None


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"gen_ai.request.model": "huge", "gen_ai.response.model": "huge"}, "unknown_model"),
        ({"gen_ai.provider.name": "nobody"}, "unknown_provider"),
        ({"gen_ai.provider.name": None}, "unknown_provider"),
        ({"gen_ai.usage.input_tokens": -1}, "invalid_usage"),
        ({"gen_ai.usage.input_tokens": "many"}, "invalid_usage"),
        ({"gen_ai.usage.input_tokens": float("nan")}, "invalid_usage"),
        ({"gen_ai.usage.input_tokens": True}, "invalid_usage"),
        ({"costspan.usage.iterations": "[1, 2"}, "invalid_usage"),
    ],
)
def test_without_a_figure_the_status_says_why_and_nothing_is_zero(
    changed: dict[str, Any], status: str, book: PriceBook
) -> None:
    attributes = {key: value for key, value in {**CHAT, **changed}.items() if value is not None}
    assert enrich(attributes, AT, book) == {"costspan.cost.status": status}


def test_a_call_without_usage_says_so(book: PriceBook) -> None:
    attributes = {key: value for key, value in CHAT.items() if not key.startswith("gen_ai.usage.")}
    assert enrich(attributes, AT, book) == {"costspan.cost.status": "no_usage"}


@pytest.mark.parametrize(
    "older",
    [
        {"gen_ai.system": "acme"},
        {"gen_ai.usage.prompt_tokens": 1000, "gen_ai.usage.completion_tokens": 100},
        {"gen_ai.usage.input_tokens": "1000", "gen_ai.usage.output_tokens": "100"},
        {"gen_ai.usage.input_tokens": 1000.0},
        {"gen_ai.usage.prompt_tokens": 77},
    ],
    ids=["gen_ai.system", "prompt_tokens", "numeric strings", "floats", "both spellings: today's wins"],
)
def test_older_spellings_and_other_dresses_of_numbers_read_the_same(older: dict[str, Any], book: PriceBook) -> None:
    attributes = {**CHAT, **older}
    if "gen_ai.system" in older:
        del attributes["gen_ai.provider.name"]
    if "gen_ai.usage.completion_tokens" in older:
        del attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"]
    assert enrich(attributes, AT, book) == enrich(CHAT, AT, book)


def test_cache_writes_under_both_names(book: PriceBook) -> None:
    written = {**CHAT, "gen_ai.usage.cache_write.input_tokens": 100}
    created = {**CHAT, "gen_ai.usage.cache_creation.input_tokens": 100}
    result = enrich(written, AT, book)
    assert result == enrich(created, AT, book)
    assert (result["costspan.cost.input"], result["costspan.cost.cache_write"]) == (0.0002, 0.00025)


def test_counts_that_contradict_each_other_are_priced_as_reported_and_marked(book: PriceBook) -> None:
    result = enrich({**CHAT, "gen_ai.usage.input_tokens": 500}, AT, book)
    assert result["costspan.usage.inconsistent"] is True
    assert result["costspan.cost.total"] == 0.0012
    reading = read({**CHAT, "gen_ai.usage.input_tokens": 500})
    assert reading is not None
    assert reading.tokens == {"cache_read": 800, "output": 100}


def test_the_model_that_answered_is_priced_else_the_one_that_was_asked_for(book: PriceBook) -> None:
    answered = enrich({**CHAT, "gen_ai.request.model": "my-deployment"}, AT, book)
    asked = enrich({**CHAT, "gen_ai.response.model": "large-2031-build-7"}, AT, book)
    assert answered == asked == enrich(CHAT, AT, book)


def test_usage_of_other_models_inside_a_call_is_added(book: PriceBook) -> None:
    part = {"model": "small", "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 100}
    attributes = {**CHAT, "costspan.usage.iterations": json.dumps([part])}
    result = enrich(attributes, AT, book)
    assert result["costspan.cost.total"] == pytest.approx(0.0016 + 0.001 + 0.0004)
    reading = read(attributes)
    assert reading is not None
    assert reading.tokens == {"input": 1200, "cache_read": 800, "output": 200}


def test_totals_that_are_shared_out_are_priced_by_each_model_and_counted_once(book: PriceBook) -> None:
    shares = [
        {"model": "large", "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 40},
        {"model": "small", "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 60},
    ]
    plain = {key: value for key, value in CHAT.items() if "cache_read" not in key}
    apart = [
        enrich(
            {**plain, "gen_ai.request.model": share["model"], "gen_ai.response.model": share["model"], **share},
            AT,
            book,
        )
        for share in shares
    ]
    attributes = {**plain, "costspan.usage.by_model": json.dumps(shares)}
    result = enrich(attributes, AT, book)
    assert result["costspan.cost.total"] == pytest.approx(sum(float(str(one["costspan.cost.total"])) for one in apart))
    reading = read(attributes)
    assert reading is not None
    assert reading.tokens == {"input": 2000, "output": 100}
    assert enrich({**plain, "costspan.usage.by_model": "[1, 2"}, AT, book)["costspan.cost.status"] == "invalid_usage"


def test_a_roll_up_is_no_call(book: PriceBook) -> None:
    assert enrich({**CHAT, "costspan.rollup": True}, AT, book) == {}


def test_a_part_without_a_price_makes_the_sum_partial(book: PriceBook) -> None:
    part = {"model": "huge", "gen_ai.usage.input_tokens": 1000}
    result = enrich({**CHAT, "costspan.usage.iterations": json.dumps([part])}, AT, book)
    assert (result["costspan.cost.status"], result["costspan.cost.total"]) == ("partial", 0.0016)


def test_a_meter_that_nobody_has_a_price_for_makes_the_cost_partial(book: PriceBook) -> None:
    result = enrich({**CHAT, "costspan.usage.smells": 3}, AT, book)
    assert (result["costspan.cost.status"], result["costspan.cost.total"]) == ("partial", 0.0016)


def test_meters_that_the_conventions_lack(book: PriceBook) -> None:
    result = enrich({**CHAT, "costspan.usage.audio_seconds": 2.5}, AT, book)
    assert result["costspan.cost.other"] == 0.000015


def test_estimated_usage_makes_an_estimated_cost(book: PriceBook) -> None:
    result = enrich({**CHAT, "costspan.usage.estimated": True}, AT, book)
    assert (result["costspan.cost.status"], result["costspan.cost.total"]) == ("estimated", 0.0016)


def test_what_the_provider_charged_wins_and_the_books_figure_stays_beside_it(book: PriceBook) -> None:
    result = enrich({**CHAT, "costspan.usage.reported_cost": 0.0017}, AT, book)
    assert result["costspan.cost.total"] == 0.0017
    assert result["costspan.cost.book"] == 0.0016
    assert result["gen_ai.usage.cost.source"] == "provider"
    assert "costspan.cost.input" not in result, "parts that add up to another sum would contradict it"


def test_what_the_provider_charged_keeps_its_parts_where_the_book_agrees(book: PriceBook) -> None:
    result = enrich({**CHAT, "costspan.usage.reported_cost": 0.0016}, AT, book)
    assert (result["costspan.cost.input"], result["costspan.cost.book"]) == (0.0004, 0.0016)


def test_what_the_provider_charged_counts_for_a_model_that_the_book_does_not_know(book: PriceBook) -> None:
    unknown = {**CHAT, "gen_ai.request.model": "huge", "gen_ai.response.model": "huge"}
    result = enrich({**unknown, "costspan.usage.reported_cost": 0.01}, AT, book)
    assert (result["costspan.cost.status"], result["costspan.cost.total"]) == ("priced", 0.01)
    assert "costspan.cost.book" not in result


@pytest.mark.parametrize("nonsense", [-1, float("nan"), float("inf"), "lots", True, [1]])
def test_a_reported_cost_that_is_no_money_leaves_the_books(nonsense: object, book: PriceBook) -> None:
    result = enrich({**CHAT, "costspan.usage.reported_cost": nonsense}, AT, book)
    assert (result["costspan.cost.total"], result["gen_ai.usage.cost.source"]) == (0.0016, "local")


@pytest.mark.parametrize(
    ("attributes", "tier", "geo"),
    [
        ({}, None, None),
        ({"costspan.service_tier": "batch", "openai.response.service_tier": "flex"}, "batch", None),
        ({"openai.response.service_tier": "flex", "openai.request.service_tier": "priority"}, "flex", None),
        ({"openai.request.service_tier": "priority"}, "priority", None),
        ({"openai.request.service_tier": "auto"}, None, None),
        ({"costspan.geo": "us", "server.address": "eu.api.openai.com"}, None, "us"),
        ({"server.address": "eu.api.openai.com"}, None, "eu"),
        ({"server.address": "bedrock-runtime.us-gov-west-1.amazonaws.com"}, None, "us-gov-west-1"),
        ({"server.address": "bedrock-agent-runtime-fips.eu-west-2.api.aws"}, None, "eu-west-2"),
        ({"server.address": "vpce-1.bedrock-runtime.ap-south-1.vpce.amazonaws.com"}, None, "ap-south-1"),
        ({"server.address": "bedrock-mantle.eu-central-1.api.aws"}, None, "eu-central-1"),
    ],
)
def test_tier_and_region(attributes: dict[str, Any], tier: str | None, geo: str | None) -> None:
    reading = read({**CHAT, **attributes})
    assert reading is not None
    assert (reading.kind.tier, reading.kind.geo) == (tier, geo)


def test_values_that_no_name_should_have_are_read_and_not_remembered(book: PriceBook) -> None:
    for _ in range(2):
        assert enrich({**CHAT, "gen_ai.response.model": ["a", "b"]}, AT, book) == enrich(CHAT, AT, book)
        assert enrich({**CHAT, "gen_ai.response.model": 5}, AT, book) == enrich(CHAT, AT, book)


def test_spans_of_ever_new_shapes_do_not_fill_the_memory(book: PriceBook) -> None:
    from costspan_processor import conventions

    for number in range(2000):
        enrich({**CHAT, f"gen_ai.prompt.{number}.content": "x"}, AT, book)
        enrich({**CHAT, "gen_ai.response.model": f"large-{number}"}, AT, book)
    assert len(conventions._plans) <= 512
    assert all(len(plan.kinds) <= 1024 for plan in conventions._plans.values() if plan is not None)


def test_the_engine_and_the_processor_mean_the_same_names() -> None:
    """The two floors share attribute names and no code: this is what holds them together."""
    from costspan_instrumentation import semconv
    from costspan_processor import conventions

    for name in ("OPERATION", "PROVIDER", "REQUEST_MODEL", "RESPONSE_MODEL", "SERVER_ADDRESS", "SERVER_PORT",
                 "ERROR_TYPE", "SERVICE_TIER", "GEO"):  # fmt: skip
        assert getattr(semconv, name) == getattr(conventions, name)
    assert semconv.REQUEST_MAX_TOKENS == conventions.MAX_TOKENS
    assert semconv.USAGE_ESTIMATED == conventions.ESTIMATED
    assert semconv.USAGE_REPORTED_COST == conventions.REPORTED_COST
    assert semconv.USAGE_ITERATIONS == conventions.ITERATIONS
    assert semconv.FETCH_RESPONSE in conventions.NOT_BILLED
    read_as_usage = {*conventions.FIELDS, *conventions._ASIDE}
    emitted = {value for value in vars(semconv).values() if isinstance(value, str) and ".usage." in value}
    # Text is what remains of a total, and a meter is any name under costspan.usage.
    unread = {
        name for name in emitted - read_as_usage if not name.startswith(("gen_ai.usage.text.", "costspan.usage."))
    }
    assert unread == set()


@given(
    model=st.sampled_from(["acme/large", "acme/small", "openai/gpt-4.1", "openai/gpt-5.4", "openai/unheard-of"]),
    answered=st.sampled_from(["large", "gpt-4.1-mini", "unheard-of", None]),
    sent=st.integers(-2, 2_000_000) | st.sampled_from(["1000", 12.0, True, None]),
    cached=st.integers(-2, 2_000_000) | st.sampled_from([0, "8", None]),
    received=st.integers(-2, 200_000) | st.none(),
    more=st.sampled_from(
        [
            {},
            {"costspan.usage.estimated": True},
            {"gen_ai.usage.reasoning.output_tokens": 3},
            {"costspan.usage.web_searches": 2},
            {"costspan.usage.reported_cost": 0.25},
            {"openai.response.service_tier": "flex"},
            {"openai.response.service_tier": "nobody's"},
            {"gen_ai.usage.prompt_tokens": 7},
        ]
    ),
)
def test_the_short_way_says_what_the_long_way_says(
    book: PriceBook, model: str, answered: str | None, sent: Any, cached: Any, received: Any, more: dict[str, Any]
) -> None:
    provider, _, name = model.partition("/")
    told = {
        "gen_ai.response.model": answered,
        "gen_ai.usage.input_tokens": sent,
        "gen_ai.usage.cache_read.input_tokens": cached,
        "gen_ai.usage.output_tokens": received,
    }
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": name,
        **{key: value for key, value in told.items() if value is not None},
        **more,
    }
    reading = read(attributes)
    assert reading is not None
    short_way = describe(assess(reading, AT, book))
    if isinstance(reading, Plain):
        full = Reading()
        full.kind, full.usage, full.tokens, full.parts = reading.kind, reading.usage, reading.tokens, ()
        full.problem = full.reported_cost = None
        full.guessed = False
        reading = full
    assert short_way == describe(assess(reading, AT, book)) == enrich(attributes, AT, book)
