"""Counts as providers report them, and the disjoint quantities that they mean."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costspan_pricing import METERS, Meter, Usage, UsageError, register

tokens = st.integers(0, 10**9)


def quantities(**counts: Any) -> dict[str, int]:
    return dict(Usage.from_inclusive(**counts).quantities)


def test_openai_reports_cached_tokens_inside_the_prompt() -> None:
    assert quantities(input=10_000, cache_read=8_000, output=1_000) == {
        "input": 2_000,
        "cache_read": 8_000,
        "output": 1_000,
    }


def test_anthropic_reports_them_beside_it_and_splits_writes_by_lifetime() -> None:
    assert quantities(
        input=100,
        cache_read=5_000,
        cache_write=3_000,
        cache_write_5m=1_000,
        cache_write_1h=2_000,
        output=200,
        cache_outside=True,
    ) == {"input": 100, "cache_read": 5_000, "cache_write_5m": 1_000, "cache_write_1h": 2_000, "output": 200}


def test_a_write_that_nobody_split_lives_five_minutes() -> None:
    assert quantities(input=12_307, cache_write=12_304) == {"input": 3, "cache_write_5m": 12_304}
    assert quantities(input=12_307, cache_write=12_304, cache_write_1h=304) == {
        "input": 3,
        "cache_write_5m": 12_000,
        "cache_write_1h": 304,
    }


def test_gemini_counts_thoughts_beside_the_answer_and_openai_within_it() -> None:
    gemini = quantities(input=1_000, output=200, reasoning=800, reasoning_outside=True)
    openai = quantities(input=1_000, output=1_000, reasoning=800)
    assert gemini == openai == {"input": 1_000, "output": 200, "output_reasoning": 800}


def test_audio_leaves_the_text_and_takes_its_cached_part_along() -> None:
    assert quantities(
        input=1_000, cache_read=300, input_audio=600, cache_read_audio=200, output=50, output_audio=40
    ) == {
        "input": 300,
        "cache_read": 100,
        "cache_read_audio": 200,
        "input_audio": 400,
        "output": 10,
        "output_audio": 40,
    }


def test_an_overlap_that_nobody_reported_is_the_least_that_fits() -> None:
    # 800 of 1,000 are audio and 500 are cached, so at least 300 of the cached ones are audio.
    usage = Usage.from_inclusive(input=1_000, cache_read=500, input_audio=800)
    assert usage.quantities == {"cache_read": 200, "cache_read_audio": 300, "input_audio": 500}
    assert not usage.inconsistent


@pytest.mark.parametrize(
    "counts",
    [
        {"input": 100, "cache_read": 200},
        {"input": 100, "cache_write": 50, "cache_write_1h": 80},
        {"output": 10, "reasoning": 20},
        {"input": 10, "input_audio": 20},
        {"input": 100, "cache_read": 50, "input_audio": 5, "cache_read_audio": 10},
    ],
)
def test_a_part_larger_than_its_whole_is_kept_and_flagged(counts: dict[str, int]) -> None:
    assert Usage.from_inclusive(**counts).inconsistent  # type: ignore[arg-type]


def test_nothing_is_inconsistent_about_a_count_that_is_missing() -> None:
    assert not Usage.from_inclusive(cache_read=200, reasoning=10, input_audio=5).inconsistent


@pytest.mark.parametrize("value", [-5, -0.5, 1.5, math.nan, math.inf, True, "12", [1]])
@pytest.mark.parametrize("field", ["input", "output", "cache_read", "cache_write", "reasoning", "output_audio"])
def test_what_cannot_be_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=field):
        Usage.from_inclusive(**{field: value})


def test_further_meters_come_in_natural_units() -> None:
    assert quantities(extra={"audio_seconds": 95.5, "web_searches": 3, "images": 0}) == {
        "audio_seconds": 95_500_000,
        "web_searches": 3,
    }
    with pytest.raises(UsageError, match="audio_seconds"):
        Usage.from_inclusive(extra={"audio_seconds": -1.0})


def test_usages_add_and_compare_by_value() -> None:
    one, other = Usage({"input": 5}), Usage({"input": 7, "images": 1}, inconsistent=True)
    assert one + other == Usage({"input": 12, "images": 1}, inconsistent=True)
    assert len({one, Usage({"input": 5, "output": 0})}) == 1
    assert not Usage()


def test_the_registry_is_open_but_never_changes_a_meaning() -> None:
    meter = Meter("test_kilometres", "kilometre", per=1)
    assert register(meter) is register(meter)
    assert METERS["test_kilometres"] is meter
    with pytest.raises(ValueError, match="test_kilometres"):
        register(Meter("test_kilometres", "mile", per=1))


@given(tokens, tokens, tokens, tokens)
def test_inclusive_and_exclusive_reports_of_one_call_mean_the_same(plain: int, read: int, write: int, out: int) -> None:
    inside = Usage.from_inclusive(input=plain + read + write, cache_read=read, cache_write=write, output=out)
    beside = Usage.from_inclusive(input=plain, cache_read=read, cache_write=write, output=out, cache_outside=True)
    assert inside == beside


@given(st.dictionaries(st.sampled_from(["input_audio", "input_image", "cache_read", "cache_write_1h"]), tokens), tokens)
def test_no_token_is_lost_or_counted_twice(parts: dict[str, int], text: int) -> None:
    usage = Usage.from_inclusive(input=text + sum(parts.values()), **parts)  # type: ignore[arg-type]
    assert sum(usage.quantities.values()) == text + sum(parts.values())
    assert not usage.inconsistent
