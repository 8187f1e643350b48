"""Advice on ledgers whose answer is known: what it saves, what it rests on, and that there is none without evidence."""

from __future__ import annotations

import json
import os
import random
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from costspan.insight.advice import Advice, Thresholds, advise, saved_by, together
from costspan.insight.advice.evidence import Evidence
from costspan_pricing import PriceBook
from tests.insight.ledgers import START, ledger
from tests.ledger.postgres import MISSING, PostgreSQL, binaries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Engine

DAY = 86_400
FIRST = int(START.timestamp()) // DAY * DAY
DAYS = 10
LAST = FIRST + DAYS * DAY
AT_NS = LAST * 10**9
"""Claude Sonnet 4.5 at $3 and $15 a million tokens, cache reads $0.30, writes $3.75 and $6; Haiku 4.5 a third."""


def daily(number: int, days: int = DAYS, *, first: int = FIRST, **call: Any) -> Iterator[dict[str, Any]]:
    """So many calls a day, evenly over its 24 hours."""
    for day in range(days):
        for one in range(number):
            yield {"at": first + day * DAY + one * DAY // number, **call}


def made(tmp_path: Path, *calls: Iterable[Mapping[str, Any]], **options: Any) -> list[Advice]:
    return advised(ledger(tmp_path / "ledger.db", [call for some in calls for call in some]), **options)


def advised(engine: Engine, **options: Any) -> list[Advice]:
    return advise(engine, FIRST, LAST, **{"book": PriceBook.bundled(), "at_ns": AT_NS, **options})


def only(advice: list[Advice], category: str) -> Advice:
    found = [one for one in advice if one.category == category]
    assert len(found) == 1, [one.title for one in advice]
    return found[0]


def saving(advice: Advice) -> Decimal:
    assert advice.savings is not None
    return advice.savings.expected


def a_month(usd_a_day: str) -> Decimal:
    return (Decimal(usd_a_day) * Decimal("30.4375")).quantize(Decimal("0.01"))


# ------------------------------------------------------------------ each category


def test_a_smaller_model_for_a_task(tmp_path: Path) -> None:
    advice = only(made(tmp_path, daily(101, task="summary")), "cheaper_model")
    assert advice.subject == {
        "provider": "anthropic", "model": "claude-sonnet-4-5", "task": "summary", "to": "anthropic/claude-haiku-4-5",
    }  # fmt: skip
    # 101 x (1,000 x $3 + 200 x $15) a million is $0.606 a day, and a third of it with Haiku.
    assert saving(advice) == a_month("0.404") == Decimal("12.30")
    assert [step.result for step in advice.steps] == [
        Decimal("6.06"), Decimal("2.02"), Decimal("4.04"), Decimal("12.30"),
    ]  # fmt: skip
    assert advice.steps[0].how == "1010000 * 3 / 1000000 + 202000 * 15 / 1000000"
    assert (advice.calls, advice.share, advice.priority, advice.effort) == (1010, 1.0, "high", "medium")
    # Each day cost the same, so the month is as sure as the days.
    assert advice.savings == (Decimal("12.30"), Decimal("12.30"), Decimal("12.30"))


def test_the_next_smaller_model_is_suggested_unless_the_user_names_some(tmp_path: Path) -> None:
    engine = ledger(tmp_path / "ledger.db", daily(100, provider="openai", model="gpt-4.1", task="sort"))
    assert only(advised(engine), "cheaper_model").subject["to"] == "openai/gpt-4.1-mini"
    named = only(advised(engine, candidates=["anthropic/claude-haiku-4-5", "openai/gpt-4.1-nano"]), "cheaper_model")
    assert named.subject["to"] == "openai/gpt-4.1-nano"
    assert not [one for one in advised(engine, candidates=["openai/gpt-4"]) if one.category == "cheaper_model"]


def test_a_prefix_that_comes_again_within_minutes_is_kept_for_five(tmp_path: Path) -> None:
    prompts: dict[str, Any] = {"input_tokens": 10_000, "output_tokens": 1, "prefix": "system", "prefix_share": 800}
    talk = [{"at": FIRST + day * DAY + n * 120, **prompts} for day in range(DAYS) for n in range(50)]
    advice = only(made(tmp_path, talk), "prompt_caching")
    # Of 500 calls, 490 find 8,000 tokens of theirs written before: they save $2.70 a million, and 10 writes cost $0.75
    # a million more.
    saved = Decimal("2.70") * 490 * 8_000 / 10**6 - Decimal("0.75") * 10 * 8_000 / 10**6
    assert saving(advice) == a_month(str(saved / DAYS))
    assert advice.title == "Cache the prefix of 8,000 tokens for 5 minutes"
    assert advice.steps[1].what.endswith("98% of the calls find it there")
    assert len(advice.examples) == 5


def test_a_prefix_that_comes_again_within_the_hour_is_kept_for_one(tmp_path: Path) -> None:
    prompts: dict[str, Any] = {"input_tokens": 10_000, "output_tokens": 1, "prefix": "system", "prefix_share": 800}
    advice = only(made(tmp_path, daily(72, **prompts)), "prompt_caching")  # every twenty minutes
    assert "for 1 hour" in advice.title
    assert advice.calls == 720


@pytest.mark.parametrize(
    "unlike",
    [
        {"number": 8},  # every three hours
        {"number": 72, "cache_read_tokens": 8_000},  # it is cached already
        {"number": 72, "prefix_share": 50},  # 500 tokens are too short for a cache
        {"number": 72, "provider": "groq", "model": "llama-3.1-8b-instant"},  # nothing to read from
    ],
)
def test_no_cache_where_it_would_not_serve(tmp_path: Path, unlike: dict[str, Any]) -> None:
    calls = daily(**{"input_tokens": 10_000, "output_tokens": 1, "prefix": "p", "prefix_share": 800, **unlike})
    assert not [one for one in made(tmp_path, calls) if one.category == "prompt_caching"]


def test_what_can_wait_goes_in_a_batch(tmp_path: Path) -> None:
    waits = daily(50, task="report", priority="low", input_tokens=5_000)
    advice = only(made(tmp_path, waits, daily(50, task="report", input_tokens=5_000)), "batch")
    # Half of 50 x (5,000 x $3 + 200 x $15) a million.
    assert saving(advice) == a_month("0.45")
    assert (advice.calls, advice.subject["to"]) == (500, "batch")


def test_flex_where_it_is_sold_and_for_tasks_that_nobody_waits_for(tmp_path: Path) -> None:
    engine = ledger(tmp_path / "ledger.db", daily(100, task="nightly", provider="openai", model="gpt-5"))
    assert not [one for one in advised(engine) if one.category == "batch"]
    advice = only(advised(engine, unhurried=["nightly"]), "batch")
    assert (advice.subject["to"], advice.effort) == ("flex", "low")


def test_no_batch_of_four_calls_a_day(tmp_path: Path) -> None:
    calls = daily(4, priority="batch", input_tokens=500_000)
    assert not [one for one in made(tmp_path, calls) if one.category == "batch"]


def test_repeated_prompts_are_answered_from_a_cache_for_a_day(tmp_path: Path) -> None:
    again = daily(25, prompt="what-is-it", input_tokens=20_000)  # $0.063 each
    once = ({**call, "prompt": f"other-{number}"} for number, call in enumerate(daily(25)))
    advice = only(made(tmp_path, again, once), "response_cache")
    # The first of each 24 hours is asked, and the 24 after it are answered.
    assert advice.calls == 240
    assert saving(advice) == a_month(str(24 * Decimal("0.063")))


def test_prompts_far_longer_than_usual(tmp_path: Path) -> None:
    usual = daily(50, task="answer", input_tokens=2_000)
    long = daily(5, task="answer", input_tokens=42_000)
    advice = only(made(tmp_path, usual, long), "context")
    # 5 x 40,000 tokens beyond the usual 2,000, at $3 a million.
    assert saving(advice) == a_month("0.6")
    assert (advice.calls, advice.subject["what"]) == (50, "prompts")


def test_conversations_that_send_all_of_their_past(tmp_path: Path) -> None:
    talks = [
        {"at": FIRST + talk * DAY + turn * 60, "conversation": f"talk-{talk}", "input_tokens": 1_000 * (turn + 1)}
        for talk in range(DAYS)
        for turn in range(40)
    ]
    advice = only(made(tmp_path, talks), "context")
    # Turns 21 to 40 send 1,000 to 20,000 tokens more than turn 20 did: 210,000 in a conversation a day.
    assert abs(saving(advice) - a_month("0.63")) <= Decimal("0.01")
    assert advice.calls == 200


def test_conversations_of_an_hour_that_is_looked_at_in_part(tmp_path: Path) -> None:
    """Hourly totals tell of them, and yet none of their calls, or few, are in the time that is asked for."""
    talks = [
        {"at": begins + turn * 60, "conversation": name, "input_tokens": 1_000 * (turn + 1)}
        for name, begins in (("before", FIRST), ("half", FIRST + 1_200), ("in", FIRST + 3_600))
        for turn in range(30)
    ]
    engine = ledger(tmp_path / "ledger.db", talks)
    found = Evidence(engine, FIRST + 1_800, LAST).conversations(20)
    assert [(len(talk), talk[0].input_tokens) for talk in found] == [(30, 1_000)]


def test_failed_and_aborted_calls_that_cost_something(tmp_path: Path) -> None:
    well = daily(90, task="chat", input_tokens=5_000)
    badly = daily(10, task="chat", input_tokens=5_000, aborted=True)
    free = daily(10, task="chat", input_tokens=None, output_tokens=None, error_type="Timeout")
    advice = only(made(tmp_path, well, badly, free), "waste")
    assert saving(advice) == a_month("0.18")
    assert advice.calls == 100
    assert advice.title == "Failed and broken-off calls for chat cost 10 % of claude-sonnet-4-5"


def test_the_same_model_from_a_cheaper_provider_in_use(tmp_path: Path) -> None:
    prices = {"acme/opal-70b": {"input": "3", "output": "15"}, "beta/lab/opal-70b": {"input": "1", "output": "5"}}
    book = PriceBook.bundled().with_prices(prices)
    calls = [*daily(100, provider="acme", model="opal-70b")]
    engine = ledger(tmp_path / "ledger.db", calls, book=book)
    assert not [one for one in advised(engine, book=book) if one.category == "provider"]
    advice = only(advised(engine, book=book, providers=["beta"]), "provider")
    assert saving(advice) == a_month("0.4")
    assert advice.subject["to"] == "beta/lab/opal-70b"


def test_notices_have_no_savings(tmp_path: Path) -> None:
    by_day = [
        {"at": FIRST + day * DAY + 9 * 3600 + n * 600, "user": f"user-{n % 3}", "input_tokens": 50_000}
        for day in range(DAYS)
        for n in range(30)
    ]
    advice = made(tmp_path, by_day)
    peak, user = only(advice, "peak_hours"), only(advice, "cost_per_user")
    assert (peak.savings, user.savings) == (None, None)
    assert peak.title == "100 % of the cost is in six hours, 08:00 to 14:00 UTC"
    # 10 calls of $0.153 a day.
    assert user.title == "A user costs $1.53 a day on which it is active (3 users)"
    assert peak.excludes == ()


# ------------------------------------------------------------------ all of them


def of_everything() -> list[dict[str, Any]]:
    """Calls with something for most categories in them."""
    chance = random.Random(3)
    calls: list[dict[str, Any]] = []
    for task, model, provider, sent in (
        ("summary", "claude-sonnet-4-5", "anthropic", 12_000),
        ("chat", "claude-opus-4-5", "anthropic", 6_000),
        ("nightly", "gpt-4.1", "openai", 9_000),
    ):
        for call in daily(60, task=task, model=model, provider=provider):
            tokens = round(sent * chance.uniform(0.5, 1.5)) * (8 if chance.random() < 0.03 else 1)
            call |= {"input_tokens": tokens, "user": f"user-{chance.randrange(9)}", "aborted": chance.random() < 0.05}
            call |= {"prompt": f"{task}-{chance.randrange(400)}", "prefix": task, "prefix_share": 600}
            calls.append(call | ({"priority": "low"} if task == "nightly" else {}))
    return calls


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A ledger of them."""
    return ledger(tmp_path_factory.mktemp("mixed") / "ledger.db", of_everything())


@pytest.mark.skipif(binaries() is None and os.environ.get("CI") != "true", reason=MISSING)
def test_postgresql_gives_the_same_advice(mixed: Engine) -> None:
    with PostgreSQL() as server:
        engine = ledger(server.database(), of_everything())
        advice = advised(engine)
        assert advice == advised(mixed)
        again = next(one for one in advice if one.category == "response_cache")
        row = taken(again, FIRST + 5 * DAY)
        assert saved_by(engine, row, LAST) == saved_by(mixed, row, LAST)
        engine.dispose()


def test_all_arithmetic_can_be_redone(mixed: Engine) -> None:
    advice = advised(mixed)
    assert {one.category for one in advice} >= {
        "cheaper_model", "prompt_caching", "batch", "response_cache", "context", "waste", "cost_per_user",
    }  # fmt: skip
    for one in advice:
        assert one.steps
        for step in one.steps:
            assert set(step.how) <= set("0123456789.+-*/ "), step.how
            again = Decimal(str(eval(step.how)))
            assert abs(again - step.result) <= Decimal("0.006" if step is one.steps[-1] else "0.000001"), step
        if one.savings is not None:
            assert one.steps[-1].result == one.savings.expected
            low, high = one.savings.low, one.savings.high
            assert low is not None
            assert high is not None
            assert 0 <= low <= one.savings.expected <= high


def test_advice_survives_json_and_has_the_same_id_tomorrow(mixed: Engine) -> None:
    advice = advised(mixed)
    assert [Advice.from_dict(json.loads(json.dumps(one.as_dict()))) for one in advice] == advice
    later = advise(mixed, FIRST + DAY, LAST, book=PriceBook.bundled(), at_ns=AT_NS)
    assert {one.id for one in later} & {one.id for one in advice}
    assert len({one.id for one in advice}) == len(advice)


def test_savings_of_the_same_calls_exclude_each_other(mixed: Engine) -> None:
    advice = advised(mixed)
    by_id = {one.id: one for one in advice}
    nightly = [one for one in advice if one.subject.get("task") == "nightly" and one.savings]
    assert len(nightly) > 1
    for one in nightly:
        assert set(one.excludes) == {other.id for other in nightly} - {one.id}
    for one in advice:
        assert all(one.id in by_id[other].excludes for other in one.excludes)
    best = {max(saving(one) for one in advice if one.savings and one.subject.get("task") == task)
            for task in ("summary", "chat", "nightly")}  # fmt: skip
    assert together(advice) == sum(best)
    assert sum(saving(one) for one in advice if one.savings) > together(advice)


def test_what_saves_most_comes_first_and_its_priority_is_its_share(mixed: Engine) -> None:
    advice = advised(mixed)
    savings = [saving(one) if one.savings else Decimal(0) for one in advice]
    assert savings == sorted(savings, reverse=True)
    assert advice[0].priority == "high"
    assert all(one.priority == "low" for one in advice if one.savings is None)


def test_where_only_a_part_of_the_calls_is_read_it_is_weighted_up(
    mixed: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = only(advised(mixed), "batch")
    monkeypatch.setattr("costspan.insight.advice.evidence.READ_AT_MOST", 300)
    part = only(advised(mixed), "batch")
    assert part.calls == whole.calls == 600
    assert float(saving(part)) == pytest.approx(float(saving(whole)), rel=0.25)


# ------------------------------------------------------------------ no advice without evidence


def test_there_is_none_in_an_empty_ledger_nor_after_two_days(tmp_path: Path) -> None:
    assert made(tmp_path) == []
    assert advised(ledger(tmp_path / "two.db", daily(500, 2, task="summary"))) == []


def test_there_is_none_for_a_few_calls_or_cents(tmp_path: Path) -> None:
    assert made(tmp_path, daily(1, task="summary", input_tokens=100_000)) == []
    assert advised(ledger(tmp_path / "cents.db", daily(10, task="sort", input_tokens=10, output_tokens=1))) == []


def test_there_is_none_where_prices_are_not_known(tmp_path: Path) -> None:
    assert made(tmp_path, daily(100, model="nobody-has-this-one", task="summary", prefix="p", prefix_share=900)) == []


def test_thresholds_are_the_callers(tmp_path: Path) -> None:
    engine = ledger(tmp_path / "ledger.db", daily(100, task="summary"))
    assert advised(engine, thresholds=Thresholds(saving=Decimal(100))) == []


# ------------------------------------------------------------------ what it has saved


def taken(advice: Advice, at: int) -> dict[str, Any]:
    return {
        "id": advice.id, "given": at - DAY, "category": advice.category, "advice": json.dumps(advice.as_dict()),
        "taken": at, "taken_by": "ann", "dismissed": None,
    }  # fmt: skip


def test_what_a_smaller_model_has_saved_is_the_difference_of_its_calls(tmp_path: Path) -> None:
    after: dict[str, Any] = {"first": LAST, "model": "claude-haiku-4-5"}
    calls = [*daily(101, task="summary"), *daily(40, task="chat")]
    calls += [*daily(101, task="summary", **after), *daily(40, first=LAST, task="chat")]
    engine = ledger(tmp_path / "ledger.db", calls)
    advice = next(one for one in advised(engine) if one.subject.get("task") == "summary")
    saved = saved_by(engine, taken(advice, LAST), LAST + DAYS * DAY)
    assert (saved.before, saved.after, saved.units) == (Decimal("0.006"), Decimal("0.002"), 1010)
    assert saved.usd == saved.low == saved.high == Decimal("4.04")
    assert saved.scope == {"task": "summary"}


def test_its_bounds_hold_what_was_saved_in_truth(tmp_path: Path) -> None:
    chance = random.Random(5)
    calls = [
        {**call, "input_tokens": round(1_000 * chance.uniform(0.5, 1.5) * (0.8 if call["at"] >= LAST else 1.0))}
        for call in daily(40, 2 * DAYS, task="chat")
    ]
    engine = ledger(tmp_path / "ledger.db", calls)
    advice = next(one for one in advised(engine) if one.subject.get("task") == "chat")
    saved = saved_by(engine, taken(advice, LAST), LAST + DAYS * DAY)
    assert saved.low is not None
    assert saved.high is not None
    assert saved.low <= 400 * 200 * Decimal(3) / 10**6 <= saved.high  # 200 tokens fewer in 400 calls
    assert saved.low < saved.high


def test_a_response_cache_saves_calls_and_is_measured_by_prompts(tmp_path: Path) -> None:
    def day(number: int, times: int) -> Iterator[dict[str, Any]]:
        for prompt in range(10):
            for again in range(times):
                at = FIRST + number * DAY + prompt * 3_600 + again * 60
                yield {"at": at, "task": "faq", "prompt": f"{number}-{prompt}", "input_tokens": 20_000}

    calls = [call for number in range(2 * DAYS) for call in day(number, 4 if number < DAYS else 1)]
    engine = ledger(tmp_path / "ledger.db", calls)
    advice = only(advised(engine), "response_cache")
    saved = saved_by(engine, taken(advice, LAST), LAST + DAYS * DAY)
    assert saved.usd == 100 * 3 * Decimal("0.063")


def test_what_was_saved_is_not_known_too_soon_nor_of_what_nobody_did(tmp_path: Path) -> None:
    engine = ledger(tmp_path / "ledger.db", daily(100, DAYS + 3, task="summary"))
    advice = only(advised(engine), "cheaper_model")
    soon = saved_by(engine, taken(advice, LAST), LAST + 3 * DAY)
    assert (soon.usd, soon.reason) == (
        None, "3 days with 300 completed calls after it was taken; 4 days and 20 are needed",
    )  # fmt: skip
    assert saved_by(engine, {**taken(advice, LAST), "taken": None}, LAST).reason == "nobody said that it has been taken"
