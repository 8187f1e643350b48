"""What calls will cost, before they are made."""

from __future__ import annotations

import json
import math
import pickle
import random
import threading
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costspan_pricing import Cost, PriceBook, RateCard, Usage
from costspan_pricing.card import parse_rate
from costspan_pricing.estimate import (
    ASSUMED_OUTPUT_TOKENS,
    CHARACTERS_PER_TOKEN,
    MOST_TURNS,
    Conversation,
    Estimator,
    Lengths,
    OutputLengths,
    Projection,
    monthly,
    project,
)
from costspan_processor.budgets import estimates, guard

AT = 1_763_874_000 * 10**9  # 23 November 2025
BOOK = PriceBook.bundled()
ESTIMATOR = Estimator(BOOK, AT)

SONNET = "anthropic/claude-sonnet-4-5"
"""3 in, 15 out, 0.30 read, 3.75 written; 6, 22.50, 0.60, 7.50 above 200,000."""
GPT = "openai/gpt-4.1"
"""2 in, 8 out, 0.50 read; writing costs what input costs."""
GEMINI = "google/gemini-2.5-pro"
"""1.25 in, 10 out, 0.125 read; 2.50, 15, 0.25 above 200,000. It has no price for writing."""
LLAMA = "groq/llama-3.1-8b-instant"
"""0.05 in, 0.08 out, and no price for a cache."""

models = st.sampled_from([SONNET, GPT, GEMINI, LLAMA, "ollama/llama3"])
shares = st.fractions(0, 1, max_denominator=1000).map(float)


def usd(cost: Cost) -> Decimal:
    assert cost.usd is not None
    return cost.usd


def card(model: str, tier: str | None = None) -> RateCard:
    provider, _, name = model.partition("/")
    found = BOOK.card(provider, name, AT, tier)
    assert found is not None
    return found


# ------------------------------------------------------------------ a call


def test_a_call_is_what_the_price_list_says() -> None:
    answer = ESTIMATOR.call("anthropic/claude-3-5-sonnet", input_tokens=1_000, output_tokens=500, max_tokens=500)
    assert usd(answer.expected) == usd(answer.upper) == Decimal("0.0105")
    assert (answer.expected.status, answer.expected.flags) == ("estimated", ("output_given",))
    assert (answer.upper.status, answer.upper.flags) == ("estimated", ("upper_bound",))
    assert [(line.meter, line.quantity) for line in answer.expected.lines] == [("input", 1_000), ("output", 500)]


def test_characters_are_divided_by_four_and_rounded_up() -> None:
    answer = ESTIMATOR.call(GPT, characters=4_001, max_tokens=10)
    assert answer.input_tokens == 1_001
    assert "input_by_characters" in answer.expected.flags
    assert "input_by_characters" in answer.upper.flags
    assert ESTIMATOR.call(GPT, characters=7, characters_per_token=3.5).input_tokens == 2
    assert ESTIMATOR.call(GPT, characters=3, characters_per_token="0.1").input_tokens == 30
    assert ESTIMATOR.call(GPT, characters=0).input_tokens == 0


def test_an_answer_of_unknown_length_is_assumed_to_be_what_a_budget_assumes() -> None:
    answer = ESTIMATOR.call(GPT, input_tokens=0)
    assert answer.output_tokens == ASSUMED_OUTPUT_TOKENS == estimates.ASSUMED_OUTPUT_TOKENS
    assert CHARACTERS_PER_TOKEN == guard.CHARACTERS_PER_TOKEN
    assert answer.expected.flags == ("output_assumed",)
    assert usd(answer.expected) == Decimal("0.008192")


def test_without_a_limit_there_is_no_upper_bound_rather_than_a_guess() -> None:
    upper = ESTIMATOR.call(GPT, input_tokens=1_000, output_tokens=100).upper
    assert (upper.total, upper.status, upper.flags) == (None, "no_usage", ("upper_bound", "output_unbounded"))


def test_no_answer_is_expected_to_be_longer_than_the_request_allows() -> None:
    for length in (None, 5_000, Lengths(100, 5_000, 5_000, 6_000)):
        answer = ESTIMATOR.call(GPT, input_tokens=1_000, output_tokens=length, max_tokens=50)
        assert answer.output_tokens == 50
        assert answer.expected.total == answer.upper.total


def test_what_the_book_does_not_know_has_no_figure_and_a_reason() -> None:
    for model, reason in (("openai/gpt-99", "unknown_model"), ("acme/large", "unknown_provider")):
        answer = ESTIMATOR.call(model, input_tokens=1_000, max_tokens=1_000)
        for cost in (answer.expected, answer.upper):
            assert (cost.total, cost.status) == (None, reason)


def test_what_is_read_from_the_cache_is_part_of_the_prompt_and_saves_the_difference_alone() -> None:
    answer = ESTIMATOR.call(SONNET, input_tokens=10_001, cache_hit_rate=0.8, output_tokens=0, max_tokens=0)
    assert answer.cached_tokens == 8_000, "rounded down"
    assert usd(answer.expected) == Decimal("0.008403")
    assert answer.expected.cache_savings == 8_000 * (3_000_000 - 300_000)


def test_a_cache_that_is_cold_is_written_where_that_costs_more_than_input() -> None:
    def upper(model: str) -> Decimal:
        return usd(ESTIMATOR.call(model, input_tokens=10_000, cache_hit_rate=0.8, max_tokens=0).upper)

    assert upper(SONNET) == Decimal("0.036"), "2,000 at 3 and 8,000 at 3.75"
    assert upper(GPT) == Decimal("0.02")
    assert upper(GEMINI) == Decimal("0.0125")


def test_a_model_without_a_price_for_its_cache_reads_nothing_from_there() -> None:
    answer = ESTIMATOR.call(LLAMA, input_tokens=10_000, cache_hit_rate=0.8, output_tokens=0)
    assert (answer.cached_tokens, usd(answer.expected)) == (0, Decimal("0.0005"))
    assert "cache_unpriced" in answer.expected.flags


def test_a_long_prompt_is_priced_at_its_own_rates() -> None:
    at, above = (ESTIMATOR.call(SONNET, input_tokens=n, output_tokens=1_000).expected for n in (200_000, 200_001))
    assert (usd(at), usd(above)) == (Decimal("0.615"), Decimal("1.222506"))


def test_the_service_tier_is_that_of_the_estimator() -> None:
    batch = Estimator(BOOK, AT, tier="batch").call(GPT, input_tokens=1_000_000, output_tokens=0)
    assert usd(batch.expected) == Decimal(1)
    odd = Estimator(BOOK, AT, tier="platinum").call(GPT, input_tokens=1_000_000, output_tokens=0)
    assert odd.expected.flags == ("tier_unpriced", "output_given")


def test_the_region_is_that_of_the_estimator() -> None:
    november = 1_793_491_200 * 10**9  # 2026
    costs = [
        usd(
            Estimator(BOOK, november, geo=geo).call("anthropic/claude-opus-4-6", input_tokens=10**6, max_tokens=0).upper
        )
        for geo in (None, "us")
    ]
    assert costs[1] == costs[0] * Decimal("1.1")


def test_the_price_is_that_of_the_instant() -> None:
    old = Estimator(BOOK, 1_746_057_600 * 10**9).call("openai/o3", input_tokens=1_000, output_tokens=0)  # May 2025
    assert usd(old.expected) == Decimal("0.01")


def test_a_free_model_is_free_however_long_its_answer() -> None:
    answer = ESTIMATOR.call("ollama/llama3", input_tokens=1_000, cache_hit_rate=0.5)
    for cost in (answer.expected, answer.upper):
        assert (cost.total, cost.status) == (0, "free")
    assert "cache_unpriced" not in answer.expected.flags


def test_an_embedding_has_no_answer() -> None:
    answer = ESTIMATOR.call("openai/text-embedding-3-small", input_tokens=1_000, max_tokens=0)
    assert usd(answer.expected) == usd(answer.upper) == Decimal("0.00002")
    assert answer.expected.flags == ("output_given",)
    # Nobody said that there is none, and the book has no price for one: the sum is no bound.
    answer = ESTIMATOR.call("openai/text-embedding-3-small", input_tokens=1_000, max_tokens=100)
    assert (answer.expected.status, usd(answer.expected)) == ("partial", Decimal("0.00002"))
    assert (answer.upper.status, answer.upper.total) == ("partial", None)
    assert "unpriced:output" in answer.upper.flags


def test_learned_lengths_give_the_mean_and_the_95th_percentile() -> None:
    answer = ESTIMATOR.call(GPT, input_tokens=0, output_tokens=Lengths(100, 300, 200, 900), max_tokens=4_000)
    assert answer.p95 is not None
    assert [usd(cost) for cost in (answer.expected, answer.p95, answer.upper)] == [
        Decimal("0.0024"),
        Decimal("0.0072"),
        Decimal("0.032"),
    ]
    assert answer.expected.flags == answer.p95.flags == ("output_learned",)
    assert ESTIMATOR.call(GPT, input_tokens=0, output_tokens=300).p95 is None


@pytest.fixture
def own(tmp_path: Path) -> Estimator:
    """A book with a model on hardware paid by the hour, and with hosting that has a free allowance."""
    source = "https://acme.example/prices"
    storage = {"usd": "0.02", "per": 1, "allowance": {"quantity": "100", "period": "month"}}
    periods: dict[str, dict[str, Any]] = {
        "llama": {"free": True, "rates": {"compute_seconds": "3.60"}, "source": source},
        "hosting": {
            "rates": {"storage_gb_months": storage, "bandwidth_gb": {"usd": "0.09", "per": 1}},
            "source": source,
        },
    }
    file = {
        "schema_version": 1,
        "book_version": "2025.11.01",
        "providers": {
            "acme": {
                "schema_version": 1,
                "provider": "acme",
                "models": {model: {"periods": [period]} for model, period in periods.items()},
            }
        },
    }
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(file), encoding="utf-8")
    return Estimator(BOOK.with_file(path), AT)


def test_a_model_paid_by_the_hour_costs_the_time_it_computes(own: Estimator) -> None:
    answer = own.call("acme/llama", input_tokens=1_000, max_tokens=500, seconds=2.5)
    assert usd(answer.expected) == usd(answer.upper) == Decimal("0.0025")
    unknown = own.call("acme/llama", input_tokens=1_000, max_tokens=500)
    for cost in (unknown.expected, unknown.upper):
        assert (cost.total, cost.flags[-1]) == (None, "duration_unknown")
    # The time of others costs nothing.
    assert usd(own.call(GPT, input_tokens=1_000, output_tokens=0, seconds=60).expected) == Decimal("0.002")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "input_tokens or characters, one of the two"),
        ({"input_tokens": 1, "characters": 1}, "input_tokens or characters, one of the two"),
        ({"input_tokens": -1}, "input_tokens must be a whole number, 0 or more, not -1"),
        ({"input_tokens": 1.5}, "input_tokens must be a whole number"),
        ({"input_tokens": True}, "input_tokens must be a whole number"),
        ({"characters": "many"}, "characters must be a whole number"),
        ({"characters": 1, "characters_per_token": 0}, "characters_per_token must be above 0"),
        ({"characters": 1, "characters_per_token": "four"}, "characters_per_token must be a number, not 'four'"),
        ({"input_tokens": 1, "max_tokens": -5}, "max_tokens must be a whole number"),
        ({"input_tokens": 1, "output_tokens": "long"}, "output_tokens must be a whole number"),
        ({"input_tokens": 1, "cache_hit_rate": 1.1}, "cache_hit_rate must be between 0 and 1, not 1.1"),
        ({"input_tokens": 1, "cache_hit_rate": float("nan")}, "cache_hit_rate must be a number, not nan"),
        ({"model": "openai/", "input_tokens": 1}, "'openai/': models are named provider/model"),
    ],
)
def test_arguments_that_make_no_sense_are_named(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError) as raised:
        ESTIMATOR.call(**{"model": GPT, **arguments})
    assert problem in str(raised.value)


def test_a_model_paid_by_the_hour_does_not_compute_for_less_than_no_time(own: Estimator) -> None:
    with pytest.raises(ValueError, match="compute_seconds must be finite and not negative"):
        own.call("acme/llama", input_tokens=1, seconds=-1)


@given(models, st.integers(0, 400_000), st.integers(0, 10_000), st.integers(0, 10_000), shares)
def test_no_call_is_expected_to_cost_more_than_its_upper_bound(
    model: str, tokens: int, output: int, limit: int, hit: float
) -> None:
    answer = ESTIMATOR.call(model, input_tokens=tokens, output_tokens=output, max_tokens=limit, cache_hit_rate=hit)
    assert answer.expected.total is not None
    assert answer.upper.total is not None
    assert answer.expected.total <= answer.upper.total


@given(models, st.integers(0, 400_000), st.integers(0, 10_000), shares)
def test_an_estimate_is_the_bill_of_the_usage_that_it_expects(model: str, tokens: int, output: int, hit: float) -> None:
    answer = ESTIMATOR.call(model, input_tokens=tokens, output_tokens=output, cache_hit_rate=hit)
    bill = card(model).cost(Usage.from_inclusive(input=tokens, cache_read=answer.cached_tokens, output=output))
    assert (answer.expected.total, answer.expected.components) == (bill.total, bill.components)


# ------------------------------------------------------------------ a conversation


def talk(model: str = SONNET, **arguments: Any) -> Conversation:
    usual = {"messages": 3, "system_tokens": 1_000, "message_tokens": 100, "output_tokens": 200, "max_tokens": 500}
    return ESTIMATOR.conversation(model, **{**usual, **arguments})


def test_every_turn_sends_all_that_was_said_before() -> None:
    found = talk()
    assert [turn.input_tokens for turn in found.turns] == [1_100, 1_400, 1_700]
    assert (found.input_tokens, found.output_tokens, found.cached_tokens) == (4_200, 600, 0)
    assert usd(found.expected) == Decimal("0.0216"), "4,200 at 3 and 600 at 15"
    # Answers of 500 make the prompts 1,100, 1,700 and 2,300.
    assert usd(found.upper) == Decimal("0.0378"), "5,100 at 3 and 1,500 at 15"
    assert (found.expected.status, found.expected.flags) == ("estimated", ("output_given",))


def test_the_cache_is_read_up_to_where_the_last_turn_ended_and_the_rest_is_written() -> None:
    found = talk(cache_hit_rate=1)
    assert [turn.cached_tokens for turn in found.turns] == [0, 1_100, 1_400]
    # 2,500 read at 0.30, 1,700 written at 3.75, 600 out at 15
    assert usd(found.expected) == Decimal("0.016125")
    assert found.expected.cache_savings == 2_500 * 2_700_000
    assert usd(found.upper) == Decimal("0.041625"), "5,100 written at 3.75"


def test_where_writing_has_no_price_the_rest_is_plain_input() -> None:
    turn = talk(GEMINI, cache_hit_rate=0.5).turns[1]
    assert turn.cached_tokens == 550
    assert turn.expected.components == {"input": 850 * 1_250_000, "cache_read": 550 * 125_000, "output": 2 * 10**9}


def test_a_cache_that_never_hits_is_only_written() -> None:
    assert usd(talk(cache_hit_rate=0).expected) == Decimal("0.02475"), "4,200 at 3.75 and 600 at 15"
    assert usd(talk(GPT, cache_hit_rate=0).expected) == usd(talk(GPT).expected)


def test_each_persona_finds_its_own_last_turn_in_the_cache() -> None:
    found = talk(personas=3, messages=2, cache_hit_rate=1, message_tokens=0)
    assert [turn.input_tokens for turn in found.turns] == [1_000, 1_200, 1_400, 1_600, 1_800, 2_000]
    assert [turn.cached_tokens for turn in found.turns] == [0, 0, 0, 1_000, 1_200, 1_400]


def test_a_conversation_gets_dearer_where_its_context_grows_long() -> None:
    found = ESTIMATOR.conversation(SONNET, messages=3, system_tokens=199_000, message_tokens=500, output_tokens=500)
    assert [turn.input_tokens for turn in found.turns] == [199_500, 200_500, 201_500]
    assert [usd(turn.expected) for turn in found.turns] == [Decimal("0.606"), Decimal("1.21425"), Decimal("1.22025")]


def test_a_conversation_of_an_unknown_model_has_its_tokens_and_no_figure() -> None:
    found = talk("openai/gpt-99")
    assert (found.expected.total, found.expected.status, found.input_tokens) == (None, "unknown_model", 4_200)
    assert talk(max_tokens=None).upper.flags == ("upper_bound", "output_unbounded")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"messages": 0}, "messages must be a whole number, 1 or more, not 0"),
        ({"personas": 0}, "personas must be a whole number, 1 or more"),
        ({"personas": 101, "messages": 100}, f"10,100 turns; {MOST_TURNS:,} are computed at most"),
        ({"system_tokens": -1}, "system_tokens must be"),
        ({"message_tokens": None}, "message_tokens must be"),
        ({"cache_hit_rate": "most"}, "cache_hit_rate must be a number"),
    ],
)
def test_a_conversation_that_makes_no_sense_is_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError) as raised:
        talk(**arguments)
    assert problem in str(raised.value)


conversations = st.fixed_dictionaries(
    {
        "model": models,
        "personas": st.integers(1, 4),
        "messages": st.integers(1, 6),
        "system_tokens": st.integers(0, 150_000),
        "message_tokens": st.integers(0, 20_000),
        "output_tokens": st.integers(0, 5_000),
        "max_tokens": st.integers(0, 8_000),
        "cache_hit_rate": st.none() | shares,
    }
)


@given(conversations)
@settings(deadline=None)
def test_a_conversation_costs_what_its_calls_cost_one_by_one(given_: dict[str, Any]) -> None:
    found = ESTIMATOR.conversation(**given_)
    system, message, hit = given_["system_tokens"], given_["message_tokens"], given_["cache_hit_rate"]
    answer = min(given_["output_tokens"], given_["max_tokens"])
    rates = card(given_["model"])
    caches = hit is not None and not rates.free and rates.rate("cache_read") is not None

    total, history, last = 0, 0, dict[int, int]()
    for number in range(given_["personas"] * given_["messages"]):
        speaker = number % given_["personas"]
        prompt = system + history + message
        read = math.floor(Decimal(str(hit)) * last.get(speaker, 0)) if caches else 0
        written = prompt - read if caches and rates.rate("cache_write_5m") is not None else 0
        bill = rates.cost(Usage.from_inclusive(input=prompt, cache_read=read, cache_write_5m=written, output=answer))
        assert found.turns[number].expected.components == bill.components
        assert bill.total is not None
        total += bill.total
        history += message + answer
        last[speaker] = prompt
    assert found.expected.total == total


@given(conversations)
@settings(deadline=None)
def test_the_whole_is_the_sum_of_its_turns_and_no_more_than_its_bound(given_: dict[str, Any]) -> None:
    found = ESTIMATOR.conversation(**given_)
    assert found.expected.total == sum(turn.expected.total or 0 for turn in found.turns)
    assert found.upper.total == sum(turn.upper.total or 0 for turn in found.turns)
    assert found.input_tokens == sum(turn.input_tokens for turn in found.turns)
    assert all(0 <= turn.cached_tokens <= turn.input_tokens for turn in found.turns)
    assert all((turn.expected.total or 0) <= (turn.upper.total or 0) for turn in found.turns)


@given(conversations)
@settings(deadline=None)
def test_a_longer_conversation_begins_like_the_shorter_one(given_: dict[str, Any]) -> None:
    shorter = ESTIMATOR.conversation(**given_)
    longer = ESTIMATOR.conversation(**{**given_, "messages": given_["messages"] + 1})
    assert longer.turns[: len(shorter.turns)] == shorter.turns
    assert (longer.expected.total or 0) >= (shorter.expected.total or 0)


@given(conversations, shares, shares)
@settings(deadline=None)
def test_a_cache_that_hits_more_often_never_costs_more(given_: dict[str, Any], one: float, other: float) -> None:
    def cost(hit: float) -> int:
        return ESTIMATOR.conversation(**{**given_, "cache_hit_rate": hit}).expected.total or 0

    less, more = sorted((one, other))
    assert cost(1) <= cost(more) <= cost(less) <= cost(0)


# ------------------------------------------------------------------ a comparison


def test_a_comparison_begins_with_the_cheapest() -> None:
    found = ESTIMATOR.compare({"input": 1_000, "output": 500}, [SONNET, GEMINI, GPT])
    assert [(offer.model, usd(offer.cost), offer.ratio) for offer in found.priced] == [
        (GPT, Decimal("0.006"), 1.0),
        (GEMINI, Decimal("0.00625"), 6.25 / 6),
        (SONNET, Decimal("0.0105"), 1.75),
    ]
    assert {offer.cost.status for offer in found.priced} == {"priced"}
    assert found.unpriced == ()


def test_what_has_no_full_price_stands_apart_with_the_reason() -> None:
    found = ESTIMATOR.compare({"input": 1_000, "file_searches": 1}, [GPT, "openai/gpt-99", "acme/x", LLAMA])
    assert [offer.model for offer in found.priced] == [GPT]
    assert [(offer.model, offer.cost.status, offer.cost.flags, offer.ratio) for offer in found.unpriced] == [
        ("acme/x", "unknown_provider", (), None),
        (LLAMA, "partial", ("unpriced:file_searches",), None),
        ("openai/gpt-99", "unknown_model", (), None),
    ]


def test_a_free_model_is_the_cheapest_and_no_measure_for_others() -> None:
    found = ESTIMATOR.compare({"input": 1_000}, [SONNET, GPT, "ollama/llama3"])
    assert [(offer.model, offer.ratio) for offer in found.priced] == [("ollama/llama3", 0), (GPT, 1), (SONNET, 1.5)]
    assert [offer.ratio for offer in ESTIMATOR.compare({"input": 1}, ["ollama/llama3"]).priced] == [0]


def test_a_model_without_a_cache_reads_the_same_tokens_as_input() -> None:
    usage = Usage({"input": 1_000, "cache_read": 9_000, "cache_write_5m": 500})
    found = {offer.model: offer.cost for offer in ESTIMATOR.compare(usage, [LLAMA, SONNET]).priced}
    assert usd(found[LLAMA]) == Decimal("0.000525"), "10,500 at 0.05"
    assert (found[LLAMA].status, found[LLAMA].flags) == ("estimated", ("cache_unpriced",))
    assert found[SONNET] == card(SONNET).cost(usage)
    free = ESTIMATOR.compare(usage, ["ollama/llama3"]).priced[0].cost
    assert (free.total, free.status, free.flags) == (0, "free", ())


def test_a_provider_alone_is_all_its_models() -> None:
    found = ESTIMATOR.compare({"input": 1_000_000, "output": 1_000}, ["anthropic", GPT, GPT])
    names = [offer.model for offer in (*found.priced, *found.unpriced)]
    assert sorted(names) == sorted([*(f"anthropic/{model}" for model in BOOK.models("anthropic")), GPT])
    totals = [offer.cost.total or 0 for offer in found.priced]
    assert totals == sorted(totals)


def test_a_comparison_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a usage of nothing"):
        ESTIMATOR.compare({"input": 0}, [GPT])
    with pytest.raises(ValueError, match="unknown meter 'inptu'; known are input, "):
        ESTIMATOR.compare({"inptu": 1}, [GPT])
    with pytest.raises(ValueError, match="input must not be negative"):
        ESTIMATOR.compare({"input": -1}, [GPT])


@given(st.lists(models, min_size=1), st.integers(0, 10**6), st.integers(1, 10**5))
def test_a_comparison_holds_what_each_model_costs(names: list[str], tokens: int, output: int) -> None:
    usage = Usage({"input": tokens, "output": output})
    found = ESTIMATOR.compare(usage, names)
    assert {offer.model: offer.cost.total for offer in found.priced} == {n: card(n).cost(usage).total for n in names}


# ------------------------------------------------------------------ a month of usage, with what is free of it


def test_the_free_allowance_of_a_month_is_taken_off(own: Estimator) -> None:
    cost = own.monthly("acme/hosting", {"storage_gb_months": 108.5, "bandwidth_gb": 50})
    assert usd(cost) == Decimal("4.67"), "8.5 GB at 0.02 and 50 GB at 0.09"
    assert (cost.status, cost.flags) == ("priced", ("allowance:storage_gb_months",))
    assert usd(own.monthly("acme/hosting", {"storage_gb_months": 100})) == 0
    assert own.monthly("acme/nothing", {"bandwidth_gb": 1}).status == "unknown_model"


allowed = parse_rate("bandwidth_gb", {"usd": "0.15", "per": 1, "allowance": {"quantity": "100", "period": "month"}})
hosting = RateCard(provider="p", model="m", tier="standard", rates={"bandwidth_gb": allowed})


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_month_never_costs_less_for_more_nor_more_than_the_list_price(one: int, other: int) -> None:
    less, more = sorted((one, other))
    usages = [Usage({"bandwidth_gb": quantity}) for quantity in (less, more)]
    bills = [monthly(hosting, usage).total or 0 for usage in usages]
    assert bills[0] <= bills[1] <= (hosting.cost(usages[1]).total or 0)


# ------------------------------------------------------------------ the days of a month

MONDAY = date(2026, 11, 2)


def money(found: Projection) -> tuple[float | None, ...]:
    """Spent, expected, low, high."""
    return tuple(None if usd is None else float(usd) for usd in found[1:5])


def days(*amounts: float | str | None, start: date = MONDAY) -> dict[date, Any]:
    return {start + timedelta(days=number): amount for number, amount in enumerate(amounts)}


def test_a_month_is_what_was_spent_and_the_mean_for_the_days_to_come() -> None:
    found = project(days("10", "14", "12", start=date(2026, 11, 1)))
    assert (found.month, *money(found)[:2]) == ("2026-11", 36, 36 + 27 * 12)
    assert (found.days, found.remaining, found.unobserved) == (3, 27, 0)
    assert found.method == "mean of 3 days, with Student's t for days that are independent and follow no trend"
    # t(2 degrees of freedom, 80 %) = 1.8856; standard deviation 2; 27 days and the mean of 3
    assert found.confidence == 0.8
    assert found.low is not None
    assert found.high is not None
    half = 1.8856 * 2 * math.sqrt(27 + 27**2 / 3)
    assert float(found.high) == pytest.approx(360 + half, abs=0.01)
    assert float(found.low) == pytest.approx(360 - half, abs=0.01)


def test_one_day_gives_a_figure_and_no_interval() -> None:
    found = project({date(2026, 11, 30): "12.40"}, month="2026-12")
    assert (*money(found), found.confidence) == (0, 384.4, None, None, None)
    assert found.method == "the amount of one day; nothing is known of how days vary"


def test_a_typical_day_makes_a_whole_month() -> None:
    for amount in ("12.40", 12.4, Decimal("12.4")):
        found = project(amount, month="2028-02")
        assert (found.expected, found.confidence, found.remaining) == (Decimal("359.6"), None, 29)
    assert ESTIMATOR.project("1").month == "2025-11", "that of the estimator's instant"


def test_weekdays_count_from_two_weeks_on() -> None:
    week = [10, 10, 10, 10, 10, 0, 0]
    plain = project(days(*week, *week[:6]))
    assert plain.method.startswith("mean of 13 days")
    found = project(days(*week, *week))
    assert found.method.startswith("mean of each weekday in 14 days")
    # 16 to 30 November: two full weeks and a Monday
    assert money(found) == (100, 210, 210, 210), "weekdays did not vary"


def test_weekdays_do_not_count_where_one_was_seen_once() -> None:
    unknown = [10, 10, 10, 10, 10, 10, None]  # Sundays
    found = project(days(*[10] * 7, *unknown, *unknown, start=date(2026, 10, 12)), month="2026-12")
    assert found.method.startswith("mean of 19 days")


def test_only_the_last_four_weeks_are_learned_from() -> None:
    found = project(days(*[1000] * 60, *[10] * 28, start=date(2026, 9, 1)), month="2026-12")
    assert (found.days, *money(found)[:2]) == (28, 0, 310)


def test_a_day_that_is_not_listed_between_others_is_one_without_spend() -> None:
    found = project({date(2026, 11, 1): 10, date(2026, 11, 4): 10})
    assert (found.days, *money(found)[:2]) == (4, 20, 20 + 26 * 5)


def test_a_day_of_which_nothing_is_known_is_not_a_day_without_spend() -> None:
    found = project({date(2026, 11, 3): 10, date(2026, 11, 4): None, date(2026, 11, 5): 20})
    assert (found.days, *money(found)[:2]) == (2, 30, 30 + 25 * 15)
    assert found.unobserved == 3, "1, 2 and 4 November"


def test_the_running_day_counts_but_teaches_nothing() -> None:
    today = date(2026, 11, 29)
    before = days(*[10] * 5, start=date(2026, 11, 24))
    found = project({**before, today: 4}, today=today)
    assert (*money(found)[:2], found.days, found.remaining) == (54, 54 + 6 + 10, 5, 2)
    busy = project({**before, today: 25}, today=today)
    assert busy.expected == 75 + 10, "it has more by now than its forecast"
    alone = project({today: 4}, today=today)
    assert money(alone) == (4, 8, None, None)
    assert alone.method.endswith("(and that one is still running)")


def test_a_month_that_is_over_is_what_it_cost() -> None:
    found = project(days(*[1] * 40, start=date(2026, 10, 1)), month="2026-10")
    assert (*money(found), found.method) == (31, 31, None, None, "the month is over")


def test_no_month_ends_below_what_was_spent() -> None:
    found = project(days(0, 100, 0, start=date(2026, 11, 1)), confidence=0.95)
    assert found.low == found.spent == 100


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: project({}), "days must have at least one amount"),
        (lambda: project({MONDAY: None}), "days must have at least one amount"),
        (lambda: project(days(-1)), "2026-11-02: an amount is USD such as 12.50, not -1"),
        (lambda: project(days(float("nan"))), "an amount is USD"),
        (lambda: project(days("ten")), "an amount is USD such as 12.50, not 'ten'"),
        (lambda: project("-1", month="2026-11"), "the amount of a day: an amount is USD"),
        (lambda: project("1"), "month is missing, such as 2026-12"),
        (lambda: project(days(1), month="November"), "month must be written as 2026-12, not 'November'"),
        (lambda: project(days(1), month="2026-10"), "no day of 2026-10 is listed, and it is over"),
        (lambda: project(days(1, 2), today=MONDAY), "2026-11-03 lies in the future: today is 2026-11-02"),
        (lambda: project(days(1), confidence=1), "confidence must be between 0 and 1, such as 0.8, not 1"),
        (lambda: project(days(1), confidence=80), "confidence must be between 0 and 1"),
    ],
)
def test_days_that_say_nothing_are_refused(call: Callable[[], object], problem: str) -> None:
    with pytest.raises(ValueError) as raised:
        call()
    assert problem in str(raised.value)


@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_the_interval_holds_the_figure_and_money_stays_exact(picos: list[int], confidence: float) -> None:
    listed = days(*(Decimal(pico).scaleb(-12) for pico in picos))  # type: ignore[arg-type]
    found = project(listed, confidence=confidence)
    inside = [amount for day, amount in listed.items() if f"{day:%Y-%m}" == found.month]
    assert found.spent == sum(inside)
    assert found.expected >= found.spent
    if found.low is not None and found.high is not None:
        assert found.spent <= found.low <= found.high
        assert found.low <= max(found.expected, found.spent) <= found.high


@pytest.mark.parametrize("observed", [5, 13, 14, 20])
def test_the_interval_holds_as_often_as_it_says(observed: int) -> None:
    """Months of independent days, busy ones and weekends: how many end within their interval."""
    chance = random.Random(observed)
    weekdays = observed >= 14
    held = 0
    for _ in range(400):
        month = {
            date(2026, 11, day): chance.gauss(100, 20) * (0.3 if weekdays and date(2026, 11, day).weekday() > 4 else 1)
            for day in range(1, 31)
        }
        found = project({day: max(0, amount) for day, amount in month.items() if day.day <= observed})
        assert found.low is not None
        assert found.high is not None
        held += float(found.low) <= sum(month.values()) <= float(found.high)
    # 400 throws at 80 % lie within 3 standard deviations of 320.
    assert 0.8 - 0.06 <= held / 400 <= 0.8 + 0.08


# ------------------------------------------------------------------ how long answers are


def test_nothing_is_learned_from_a_few_answers() -> None:
    lengths = OutputLengths()
    for _ in range(19):
        lengths.observe("chat", 100)
    assert lengths.of("chat") is None
    lengths.observe("chat", 100)
    assert lengths.of("chat") == Lengths(20, 100, 103, 103)


def test_the_first_key_that_is_known_well_enough_decides() -> None:
    lengths = OutputLengths()
    for _ in range(30):
        lengths.observe(("gpt-4.1", None), 500)
    lengths.observe(("gpt-4.1", "summary"), 10)
    found = lengths.of(("gpt-4.1", "summary"), ("gpt-4.1", None))
    assert found is not None
    assert found.mean == 500
    assert lengths.of(("gpt-4.1", "summary")) is None


def observed(tokens: list[int]) -> OutputLengths:
    lengths = OutputLengths()
    for length in tokens:
        lengths.observe("key", length)
    return lengths


lists = st.lists(st.integers(0, 10**6), min_size=20, max_size=300)


@given(lists)
def test_percentiles_are_never_too_small_and_at_most_a_sixteenth_too_large(tokens: list[int]) -> None:
    found = observed(tokens).of("key")
    assert found is not None
    assert found.mean == math.ceil(sum(tokens) / len(tokens))
    for percent, learned in ((50, found.p50), (95, found.p95)):
        exact = sorted(tokens)[math.ceil(len(tokens) * percent / 100) - 1]
        assert exact <= learned <= exact + exact / 16


@given(lists, lists)
def test_merging_is_observing_both(one: list[int], other: list[int]) -> None:
    merged = observed(one)
    theirs = observed(other)
    # That of another process comes pickled.
    merged.merge(pickle.loads(pickle.dumps(theirs)))
    assert merged.of("key") == observed(one + other).of("key")
    assert theirs.of("key") == observed(other).of("key")


def test_what_was_long_ago_is_forgotten() -> None:
    found = observed([10] * 5_000 + [1_000] * 2_001).of("key")
    assert found is not None
    assert (found.mean, found.p50) == (1_000, 1_023)
    assert 1_000 <= found.calls <= 2_000


def test_what_was_computed_is_kept_no_longer_than_a_thirtysecond_of_the_calls() -> None:
    lengths = observed([10] * 320)
    before = lengths.of("key")
    for _ in range(11):
        lengths.observe("key", 10_000)
    after = lengths.of("key")
    assert before is not None
    assert after is not None
    assert (before.calls, after.calls) == (320, 331)


def test_memory_is_bounded() -> None:
    lengths = OutputLengths()
    for number in range(3_000):
        for _ in range(20):
            lengths.observe(number, number)
    assert [lengths.of(number) is not None for number in (0, 1_999, 2_000, 2_999)] == [False, False, True, True]
    lengths.observe(2_000, 2_000)
    lengths.observe("a new one", 1)
    assert [lengths.of(number) is not None for number in (2_000, 2_001, 2_002)] == [True, False, True]
    wide = observed([random.Random(number).randrange(10**6) for number in range(2_000)])
    assert len(pickle.dumps(wide)) < 10_000


def test_threads_lose_no_answer() -> None:
    lengths = OutputLengths()

    def work(length: int) -> None:
        for _ in range(200):
            lengths.observe("key", length)
            lengths.of("key")

    threads = [threading.Thread(target=partial(work, number)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    merged = OutputLengths()
    merged.merge(lengths)
    found = merged.of("key")
    assert found is not None
    assert (found.calls, found.mean) == (800, 2)


@pytest.mark.parametrize("length", [-1, 1.5, None, True])
def test_a_length_is_a_number_of_tokens(length: Any) -> None:
    with pytest.raises(ValueError, match="tokens must be a whole number, 0 or more"):
        OutputLengths().observe("key", length)


def test_learned_lengths_of_a_normal_sample_are_its_percentiles() -> None:
    spread = NormalDist(1_000, 100)
    found = observed([round(spread.inv_cdf((number + 0.5) / 500)) for number in range(500)]).of("key")
    assert found is not None
    assert found.mean == 1_000
    assert spread.inv_cdf(0.95) <= found.p95 <= spread.inv_cdf(0.95) * 17 / 16
