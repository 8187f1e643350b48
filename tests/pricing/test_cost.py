"""From quantities and rates to picodollars."""

from __future__ import annotations

import pickle
from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costspan_pricing import METERS, Cost, PriceBook, RateCard, Usage
from costspan_pricing.card import Rate, parse_rate

prices = st.decimals(0, 1000, places=6).map(lambda price: format(price, "f"))
meters = st.sampled_from(
    ["input", "output", "cache_read", "cache_write_1h", "output_reasoning", "input_audio", "audio_seconds", "images"]
)
usages = st.dictionaries(meters, st.integers(0, 10**12))


def card(rates: dict[str, str], context_tiers: dict[int, dict[str, str]] | None = None) -> RateCard:
    def ready(listed: dict[str, str]) -> dict[str, Rate]:
        return {meter: parse_rate(meter, price) for meter, price in listed.items()}

    return RateCard(
        provider="p",
        model="m",
        tier="standard",
        rates=ready(rates),
        context_tiers=[(limit, ready(tiered)) for limit, tiered in (context_tiers or {}).items()],
    )


def test_a_call_is_priced_to_the_last_digit() -> None:
    cost = card({"input": "2", "cache_read": "0.5", "output": "8"}).cost(
        Usage.from_inclusive(input=10_000, cache_read=8_000, output=1_000)
    )
    assert cost.total == 16_000_000_000
    assert cost.usd == Decimal("0.016")
    assert cost.components == {"input": 4 * 10**9, "cache_read": 4 * 10**9, "output": 8 * 10**9}
    assert [(line.meter, line.quantity, line.rate, line.per, line.pico) for line in cost.lines] == [
        ("input", 2000, Decimal(2), 1_000_000, 4 * 10**9),
        ("cache_read", 8000, Decimal("0.5"), 1_000_000, 4 * 10**9),
        ("output", 1000, Decimal(8), 1_000_000, 8 * 10**9),
    ]


def test_one_token_of_the_cheapest_model_is_not_nothing() -> None:
    assert card({"input": "0.10"}).cost(Usage({"input": 1})).usd == Decimal("0.0000001")


def test_rates_that_are_no_whole_picodollars_are_divided_once_and_half_even() -> None:
    hourly = card({"audio_seconds": "3"})
    assert hourly.cost(Usage.from_inclusive(extra={"audio_seconds": 1})).total == 833_333_333
    assert hourly.cost(Usage.from_inclusive(extra={"audio_seconds": 3600})).total == 3 * 10**12
    halves = card({"input": "0.0000005"})  # half a picodollar a token
    assert [halves.cost(Usage({"input": n})).total for n in (1, 3, 5)] == [0, 2, 2]


def test_a_longer_prompt_is_priced_whole_at_its_tier() -> None:
    tiered = card(
        {"input": "3", "cache_read": "0.3", "output": "15"},
        {200_000: {"input": "6", "cache_read": "0.6", "output": "22.5"}},
    )
    assert tiered.cost(Usage({"input": 200_000})).usd == Decimal("0.6")
    assert tiered.cost(Usage({"input": 200_001})).usd == Decimal("1.200006")
    # What was read from the cache is part of the prompt; the answer is not.
    assert tiered.cost(Usage({"input": 1, "cache_read": 200_000, "output": 1})).usd == Decimal("0.1200285")
    assert tiered.cost(Usage({"input": 1, "output": 300_000})).usd == Decimal("4.500003")


def test_a_meter_without_a_rate_makes_the_cost_partial_never_cheaper_text() -> None:
    cost = card({"input": "2.5", "output": "10"}).cost(Usage({"input": 500, "input_audio": 1000}))
    assert (cost.status, cost.flags, cost.usd) == ("partial", ("unpriced:input_audio",), Decimal("0.00125"))
    assert cost.lines[1].pico is None
    nothing = card({"input": "2.5"}).cost(Usage({"output": 5}))
    assert (nothing.status, nothing.total) == ("partial", None)


def test_what_is_unknown_is_not_zero_and_what_is_free_is() -> None:
    assert Cost.unpriced("unknown_model").total is None
    assert Cost.unpriced("no_usage").usd is None
    free = RateCard(provider="p", model="m", tier="standard", rates={}, free=True).cost(Usage({"input": 5}))
    assert (free.status, free.total, free.lines[0].pico) == ("free", 0, 0)


def test_caching_saves_against_the_input_rate_and_writing_costs_a_premium() -> None:
    cost = card({"input": "3", "cache_read": "0.3", "cache_write_5m": "3.75", "output": "15"}).cost(
        Usage({"input": 10, "cache_read": 1_000_000, "cache_write_5m": 1_000_000})
    )
    assert cost.cache_savings == 2_700_000_000_000
    assert cost.cache_write_premium == 750_000_000_000


def test_costs_add_up_line_by_line() -> None:
    one = card({"input": "1"}).cost(Usage({"input": 1_000_000}))
    two = card({"input": "1", "output": "2"}).cost(Usage({"input": 1_000_000, "output": 1_000_000}))
    both = one + two
    assert (both.usd, both.status, len(both.lines)) == (Decimal(4), "priced", 3)
    assert both.components == {"input": 2 * 10**12, "output": 2 * 10**12}
    assert sum((one, two, one), start=Cost.unpriced("no_usage")).status == "partial"
    unknown = Cost.unpriced("unknown_model") + Cost.unpriced("unknown_model")
    assert (unknown.status, unknown.total) == ("unknown_model", None)


def test_the_figure_of_the_provider_wins_and_ours_stays_beside_it() -> None:
    ours = card({"input": "1"}).cost(Usage({"input": 1_000_000}))
    theirs = Cost.reported(0.95, local=ours)
    assert (theirs.usd, theirs.source, theirs.components) == (Decimal("0.95"), "provider", {"other": 95 * 10**10})
    assert theirs.local is ours
    assert theirs.lines == ours.lines
    assert Cost.reported("1.0", local=ours).components == ours.components
    for wrong in (-1, float("nan"), "much"):
        with pytest.raises(ValueError, match="reported cost"):
            Cost.reported(wrong)


def test_a_cost_cannot_be_changed_but_can_be_copied() -> None:
    cost = card({"input": "1"}).cost(Usage({"input": 1_000_000}))
    with pytest.raises(AttributeError):
        cost.total = 0  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(cost)) == cost


@given(st.dictionaries(meters, prices, min_size=1), usages)
def test_picodollars_equal_decimal_arithmetic(listed: dict[str, str], used: dict[str, int]) -> None:
    cost = card(listed).cost(Usage(used))
    exact = {
        meter: (Decimal(quantity) / METERS[meter].scale * Decimal(listed[meter]) / METERS[meter].per).quantize(
            Decimal("1e-12"), ROUND_HALF_EVEN
        )
        for meter, quantity in used.items()
        if quantity and meter in listed
    }
    missing = any(quantity and meter not in listed for meter, quantity in used.items())
    assert cost.status == ("partial" if missing else "priced")
    assert cost.usd == (sum(exact.values()) if exact or not missing else None)
    assert sum(cost.components.values()) == (cost.total or 0)
    assert sum(line.pico or 0 for line in cost.lines) == (cost.total or 0)


@given(usages, usages)
def test_cost_is_additive_within_a_tier_and_grows_with_every_meter(one: dict[str, int], other: dict[str, int]) -> None:
    tokens = ("input", "output", "cache_read", "cache_write_1h", "output_reasoning", "input_audio")
    all_priced = card({**dict.fromkeys(tokens, "1.25"), "images": "0.04", "audio_seconds": "0.36"})
    first, second = (all_priced.cost(Usage(used)) for used in (one, other))
    together = all_priced.cost(Usage(one) + Usage(other))
    assert first.total is not None
    assert together.total == (first + second).total
    assert together.total is not None
    assert together.total >= first.total


@settings(max_examples=50)
@given(st.sampled_from(["gpt-4.1", "gpt-5.4", "o3", "gpt-audio"]), st.integers(0, 300_000), st.integers(0, 300_000))
def test_the_real_book_keeps_to_the_same_rules(model: str, prompt: int, answer: int) -> None:
    found = PriceBook.bundled().card("openai", model, 1_795_392_000 * 10**9)
    assert found is not None
    total = found.cost(Usage({"input": prompt, "output": answer})).total
    more = found.cost(Usage({"input": prompt + 1, "output": answer})).total
    assert total is not None
    assert more is not None
    assert more > total
