"""Thirty days of healthy noise: no alert fires but the bands of budgets, each once, and a runaway job fires once.

Calls by day and night and over weekends, calls at random times with costs and durations from long-tailed
distributions, one call in two hundred failing, processes that restart; every rule as shipped, in a real Prometheus, on
a grid of five minutes, which all windows are multiples of.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections import Counter, defaultdict
from datetime import UTC, datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from tests.grafana.backfill import Scrapes, head, over_time, record
from tests.grafana.prometheus import serve
from tests.grafana.rules import ALERTS, inlined, needed, rules

if TYPE_CHECKING:
    from collections.abc import Iterable

STEP: Final = 300
DAY: Final = 86400
START: Final = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())  # a Sunday
END: Final = START + 30 * DAY
RUNAWAY: Final = range(START + 16 * DAY + 10 * 3600, START + 16 * DAY + 13 * 3600)
"""Three hours in which a job calls without end."""
DURATION: Final = "gen_ai_client_operation_duration_seconds"
SECONDS: Final = (0.64, 1.28, 2.56, 5.12, 10.24, 20.48)


class Model(NamedTuple):
    """A model of a provider, as one service calls it."""

    job: str
    provider: str
    model: str
    per_minute: float
    """Calls in an average minute of a working day."""
    usd: float
    """The median of a call's cost; its mean is 1.4 times as much."""
    seconds: float
    cached: float
    """Share of the prompt."""
    instances: tuple[str, ...]


MODELS: Final = (
    Model("shop", "openai", "gpt-4o", 4, 0.02, 1.5, 0.5, ("a:9464", "b:9464")),
    Model("shop", "anthropic", "claude-sonnet-4-5", 1, 0.05, 3.0, 0.7, ("a:9464",)),
)


class Budget(NamedTuple):
    """A budget of the shop's spending, limited to what it is expected to spend divided by `used`."""

    name: str
    kind: str
    used: float


BUDGETS: Final = (
    Budget("company", "month", 0.9),
    Budget("daily", "day", 0.85),
    Budget("window", "24h", 0.45),
)


def load(at: int) -> float:
    """Traffic as a share of a working day's mean: little at night, most after noon, a third at the weekend."""
    hour = at % DAY / 3600
    weekday = (at // DAY + 3) % 7
    return (0.5 + 1.6 * math.exp(-(((hour - 13.5) / 4.2) ** 2))) / 0.97 * (0.35 if weekday >= 5 else 1)


def happening(mean: float, dice: random.Random) -> int:
    """How many of the independent events happen of which `mean` are expected (Poisson)."""
    left, count = math.exp(-mean), -1
    while left <= 1:
        left, count = left / (1 - dice.random()), count + 1
    return count


class Pod:
    """One process that calls one model: its counters since it started."""

    def __init__(self, model: Model, instance: str) -> None:
        self.model = model
        own = {
            "job": model.job,
            "instance": instance,
            "gen_ai_provider_name": model.provider,
            "gen_ai_request_model": model.model,
        }
        self.heads = (
            head("costspan_cost_USD_total", {**own, "costspan_component": "input"}),
            head("costspan_calls_total", {**own, "costspan_cost_status": "priced"}),
            head("costspan_calls_total", {**own, "costspan_cost_status": "no_usage"}),
            head("costspan_tokens_total", {**own, "costspan_component": "input"}),
            head("costspan_tokens_total", {**own, "costspan_component": "cache_read"}),
            head("costspan_usage_problems_total", {**own, "kind": "inconsistent"}),
            *(head(f"{DURATION}_bucket", {**own, "le": top}) for top in (*map(str, SECONDS), "+Inf")),
            head(f"{DURATION}_count", own),
            head(f"{DURATION}_count", {**own, "error_type": "RateLimitError"}),
        )
        self.calls = self.failed = self.input = self.cached = 0
        self.usd = 0.0
        self.buckets = [0] * (len(SECONDS) + 1)

    def step(self, calls: int, dice: random.Random) -> float:
        """So many calls; returns what they cost."""
        spent = 0.0
        for _ in range(calls):
            if dice.random() < 0.005:
                self.failed += 1
                continue
            size = dice.lognormvariate(0, 0.8)
            spent += self.model.usd * size
            tokens = int(3000 * size)
            cached = int(tokens * min(1.0, self.model.cached * dice.uniform(0.4, 1.3)))
            self.input += tokens - cached
            self.cached += cached
            self.buckets[bisect_left(SECONDS, self.model.seconds * dice.lognormvariate(0, 0.6))] += 1
        self.calls += calls
        self.usd += spent
        return spent

    def scrape(self, scrapes: Scrapes, at: int) -> None:
        for family, first, value in (
            ("costspan_cost_USD", self.heads[0], self.usd),
            ("costspan_calls", self.heads[1], self.calls - self.failed),
            ("costspan_calls", self.heads[2], self.failed),
            ("costspan_tokens", self.heads[3], self.input),
            ("costspan_tokens", self.heads[4], self.cached),
            ("costspan_usage_problems", self.heads[5], self.calls // 500),
        ):
            # A counter that nothing was added to is not shown.
            if value:
                scrapes.add(family, "counter", first, at, value)
        counts = [*accumulate(self.buckets), self.calls - self.failed]
        for first, count in zip(self.heads[6:], (*counts, self.failed), strict=True):
            if count:
                scrapes.add(DURATION, "histogram", first, at, count)


def period(kind: str, at: int) -> tuple[str, int, int]:
    """Id, start and end of the budget's period."""
    if kind == "month":
        return "2026-11", START, END
    if kind == "day":
        first = at // DAY * DAY
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}", first, first + DAY
    return kind, at - DAY, at


def gauges(scrapes: Scrapes, at: int, name: str, kind: str, spent: float, limit: float) -> None:
    ident, start, end = period(kind, at)
    labels = {"costspan_budget_name": name, "costspan_budget_period": ident, "job": "shop"}
    for gauge, value in (
        ("spent_USD", spent), ("limit_USD", limit), ("utilization_ratio", spent / limit),
        ("unsettled_USD", spent * 0.01), ("period_start_seconds", start), ("period_end_seconds", end),
    ):  # fmt: skip
        family = f"costspan_budget_{gauge}"
        scrapes.add(family, "gauge", head(family, labels), at, value)


def month(seed: int) -> Scrapes:
    """All samples of the thirty days."""
    dice = random.Random(seed)
    scrapes = Scrapes()
    pods = {(model, instance): Pod(model, instance) for model in MODELS for instance in model.instances}
    mean = sum(load(at) for at in range(START, END, STEP)) * STEP / 60  # of one call a minute, over the month
    expected = sum(model.per_minute * model.usd * math.exp(0.32) for model in MODELS) * mean
    working_day = expected / (22 + 8 * 0.35)
    limits = {budget.name: (expected if budget.kind == "month" else working_day) / budget.used for budget in BUDGETS}
    spent: defaultdict[tuple[str, str], float] = defaultdict(float)
    window = [0.0] * (DAY // STEP)
    runaway = 0.0
    for number, at in enumerate(range(START, END, STEP)):
        gained = 0.0
        for (model, instance), pod in pods.items():
            # A release every four days, one pod after the other.
            if number % (4 * DAY // STEP) == (100 if instance == "a:9464" else 103):
                pod = pods[model, instance] = Pod(model, instance)
            gained += pod.step(happening(model.per_minute / len(model.instances) * STEP / 60 * load(at), dice), dice)
            # A scrape in a thousand fails.
            if dice.random() > 0.001:
                pod.scrape(scrapes, at)
        window[number % len(window)] = gained
        for name, kind, _ in BUDGETS:
            ident, _, _ = period(kind, at)
            spent[name, ident] = spent[name, ident] + gained if kind != "24h" else math.fsum(window)
            gauges(scrapes, at, name, kind, spent[name, ident], limits[name])
        runaway += gained * 0.2 * (60 if at in RUNAWAY else 1)
        scrapes.add("costspan_cost_USD", "counter", 'costspan_cost_USD_total{job="runaway"}', at, runaway)
        gauges(scrapes, at, "runaway", "month", runaway, expected * 0.5)
        for job in ("shop", "runaway"):
            age = "costspan_price_book_age_seconds"
            scrapes.add(age, "gauge", head(age, {"job": job}), at, 10 * DAY + at - START)
    return scrapes


class Episode(NamedTuple):
    """An alert from when it began to fire until it ended."""

    alert: str
    labels: tuple[str, ...]
    start: int
    end: int


def seconds(text: str) -> int:
    return int(text[:-1]) * {"m": 60, "h": 3600}[text[-1]] if text else 0


def episodes(rule: dict[str, Any], found: Iterable[dict[str, Any]]) -> list[Episode]:
    """When the alert fired, from the times at which its expression gave something: `for` and `keep_firing_for`."""
    hold, keep = seconds(rule.get("for", "")), seconds(rule.get("keep_firing_for", ""))
    told = []
    # An alert has no metric name: what an expression finds under two names is one.
    actives: dict[tuple[str, ...], set[int]] = defaultdict(set)
    for series in found:
        labels = tuple(sorted(value for key, value in series["metric"].items() if key != "__name__"))
        actives[labels + tuple(sorted(rule["labels"].values()))] |= {int(at) for at, _ in series["values"]}
    for labels, active in actives.items():
        since: int | None = None
        firing: int | None = None
        last = 0
        for at in range(min(active), END + STEP, STEP):
            if at in active:
                since = at if since is None else since
                last = at
                if firing is None and at - since >= hold:
                    firing = at
            elif firing is None:
                since = None
            elif at - last > keep or at >= END:
                told.append(Episode(rule["alert"], labels, firing, at))
                since = firing = None
    return told


@pytest.fixture(scope="module")
def fired(tmp_path_factory: pytest.TempPathFactory) -> list[Episode]:
    """Every time that an alert fired in the thirty days."""
    data = tmp_path_factory.mktemp("noise") / "data"
    month(seed=7).blocks(data)
    alerts = {rule["alert"] for rule in rules(ALERTS)}
    # What is read at other times must be recorded, and what several alerts compute is quicker so.
    ratios = {
        rule["record"] for group in needed(alerts) for rule in group["rules"] if ":ratio" in rule.get("record", "")
    }
    kept = {*over_time(alerts), *ratios, "costspan:budget_limit_USD:per_hour"}
    record(data, range(START, END, STEP), kept)
    told = []
    with serve(data) as prometheus:
        for rule in rules(ALERTS):
            expr = inlined(rule["expr"], keep=kept)
            told += episodes(rule, prometheus.range(expr, START, END - STEP, STEP))
    return told


def of(fired: list[Episode], *, runaway: bool) -> dict[str, list[Episode]]:
    by_alert = defaultdict(list)
    for episode in fired:
        if ("runaway" in episode.labels) == runaway:
            by_alert[episode.alert].append(episode)
    return by_alert


def test_healthy_noise_fires_nothing_but_bands(fired: list[Episode]) -> None:
    healthy = of(fired, runaway=False)
    assert {*healthy} == {"CostSpanBudgetThreshold"}, healthy
    assert {"company", "daily"} <= {label for one in healthy["CostSpanBudgetThreshold"] for label in one.labels}


def test_no_alert_goes_off_and_on_again(fired: list[Episode]) -> None:
    """Each band of each budget once a period, each other alert once."""
    often = Counter((episode.alert, episode.labels) for episode in fired)
    assert {alert: count for alert, count in often.items() if count > 1} == {}


def test_a_runaway_job_fires_once(fired: list[Episode]) -> None:
    """So the silence of the others is not the silence of rules that see nothing."""
    runaway = of(fired, runaway=True)
    assert {"CostSpanSpendSpike", "CostSpanBudgetBurnFast", "CostSpanBudgetBurnSlow"} <= {*runaway}
    for alert in ("CostSpanSpendSpike", "CostSpanBudgetBurnFast"):
        (episode,) = runaway[alert]
        assert RUNAWAY[0] <= episode.start <= RUNAWAY[0] + 1800, f"{alert} was late"
        assert RUNAWAY[-1] <= episode.end <= RUNAWAY[-1] + 3 * 3600, f"{alert} stayed"
