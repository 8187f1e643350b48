"""A small company's calls, made up, over days or months: through the real processor, at simulated times.

Services of one or two processes call models of five providers, by the hour of the day and the day of the week. Things
happen to them: releases, a cache that breaks, a loop, an outage, a move to a cheaper model, a new model that grows.
What they cost is worked out by the processor with the prices of the day, and its guard keeps their budgets.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from decimal import Decimal
from heapq import heappop, heappush, merge
from itertools import count
from operator import attrgetter
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry import context as otel
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from costspan_pricing import PriceBook, Usage
from costspan_processor import Budget, Processing, Settings
from costspan_processor.attribution import attributed, attributes_of, dollars
from costspan_processor.budgets import Guard
from costspan_processor.budgets.memory import MemoryStore
from costspan_processor.budgets.periods import period_at
from costspan_processor.metrics import DIMENSIONS, GENERATION_ATTRIBUTE

from .recorder import Group, History, Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from opentelemetry import metrics
    from opentelemetry.util.types import Attributes

    from costspan_processor.budgets.store import Answer, Claim, Settlement, Store

HOUR: Final = 3600
DAY: Final = 86400

_ERRORS: Final = ("RateLimitError", "APITimeoutError")


def _office(at: float) -> float:
    """The load at a time (UTC): little at night, most in the early afternoon, less at weekends; 1 is the mean."""
    hour = at % DAY / HOUR
    weekend = int(at // DAY + 3) % 7 >= 5
    return (0.35 + 1.47 * math.exp(-(((hour - 13.5) / 4.2) ** 2))) * (0.5 if weekend else 1.2)


def _nightly(at: float) -> float:
    """All of the work between two and four at night."""
    return 12.0 if 2 <= at % DAY / HOUR < 4 else 0.0


@dataclass(frozen=True)
class Kind:
    """A kind of call: how many a day, how large (means), of whom."""

    provider: str
    model: str
    per_day: float
    """By all processes of its service together."""
    prompt: int
    """Tokens, cached ones included."""
    output: int
    team: str | None = None
    feature: str | None = None
    task: str | None = None
    operation: str = "chat"
    cached: float = 0.0
    """Share of the prompt that is read from the cache."""
    written: float = 0.0
    """Share that is written to it."""
    reasoning: float = 0.0
    """Share of the output."""
    tier: str | None = None
    streamed: bool = False
    aborted: float = 0.0
    """Share of the streams that are broken off."""
    doubtful: float = 0.0
    """Share of the calls whose counts contradict each other."""
    failing: float = 0.0
    seconds: float = 1.6
    load: Callable[[float], float] = _office
    users: int = 0
    """How many people it is for, where users and sessions are labels."""

    @property
    def name(self) -> str:
        return f"{self.feature}/{self.task}/{self.model}"


@dataclass(frozen=True)
class Service:
    """What one job of Prometheus scrapes."""

    job: str
    instances: int
    kinds: tuple[Kind, ...]


_TRIAGE: Final = Kind(
    "anthropic", "claude-haiku-4-5", 900, 1700, 190, "support", "tickets", "triage", cached=0.35, seconds=0.9
)
_TRIAGE_CHEAPER: Final = replace(_TRIAGE, provider="gcp.gemini", model="gemini-2.5-flash-lite", cached=0.2, seconds=0.7,
                                 operation="generate_content")  # fmt: skip
_REPLY: Final = Kind(
    "anthropic", "claude-sonnet-4-6", 520, 6200, 520, "support", "tickets", "reply", cached=0.78, written=0.06,
    streamed=True, aborted=0.02, failing=0.006, seconds=5.5, users=5,
)  # fmt: skip
_EXTRACT: Final = Kind(
    "gcp.gemini", "gemini-2.5-pro", 170, 5200, 900, "research", "papers", "extract", "generate_content", cached=0.25,
    reasoning=0.5, failing=0.01, seconds=9,
)  # fmt: skip
_DEEP: Final = Kind(
    "anthropic", "claude-opus-4-8", 34, 14000, 2200, "research", "papers", "review", cached=0.55, written=0.1,
    streamed=True, aborted=0.04, seconds=28,
)  # fmt: skip
_NEW: Final = replace(_DEEP, model="claude-opus-5", per_day=60, seconds=22)

SERVICES: Final = (
    Service(
        "shop",
        2,
        (
            Kind("openai", "gpt-5.4", 620, 3400, 380, "shop", "assistant", "answer", cached=0.6, streamed=True,
                 aborted=0.03, failing=0.004, seconds=4),
            Kind("openai", "gpt-5.4-mini", 700, 900, 90, "shop", "assistant", "rewrite-query", cached=0.2, seconds=0.8),
            Kind("openai", "text-embedding-3-small", 1000, 640, 0, "shop", "search", "index", "embeddings",
                 seconds=0.2),
            Kind("mistral_ai", "mistral-medium-latest", 130, 1500, 330, "shop", "catalogue", "describe", seconds=3),
        ),
    ),
    Service("support", 1, (_REPLY, _TRIAGE, Kind(
        "gcp.gemini", "gemini-2.5-flash", 420, 2100, 240, operation="generate_content", seconds=1.1))),
    Service(
        "research",
        1,
        (
            _EXTRACT,
            _DEEP,
            Kind("openai", "gpt-5.4", 330, 2900, 420, "research", "labels", "classify", tier="batch", seconds=40,
                 load=_nightly, failing=0.01),
            Kind("aws.bedrock", "amazon.nova-pro-v1:0", 160, 2600, 300, "data", "ingest", "clean", doubtful=0.03,
                 seconds=2.4),
            Kind("openai", "gpt-7-preview", 12, 1200, 300, "research", "prototype"),
            # Its budget has no room for one call: each is refused.
            Kind("openai", "gpt-5.4", 25, 1200, 300, "research", "experiment"),
        ),
    ),
)  # fmt: skip
REPORT: Final = Kind(
    "anthropic", "claude-sonnet-4-6", 0, 9000, 1100, "operations", "reports", "nightly", failing=0.0, seconds=14
)
"""What each of the processes does that make one call and end."""
REPORTING: Final = "research"
"""Their job."""


class Call(NamedTuple):
    """One call that is to be made."""

    at: float
    """Unix seconds."""
    instance: int
    kind: Kind
    prompt: int
    output: int
    cached: int
    written: int
    seconds: float
    first_chunk: float
    error: str | None
    aborted: bool
    doubtful: bool


@dataclass(frozen=True)
class Story:
    """What happens between `start` and `end` (unix seconds), and goes on happening after it."""

    start: int
    end: int
    seed: int = 1
    one_call_processes: int = 200

    def day(self, share: float, hour: float = 0) -> float:
        """An hour (UTC) of the day after a share of the time."""
        return (self.start + (self.end - self.start) * share) // DAY * DAY + hour * HOUR

    def kinds(self, service: Service, at: float) -> Iterator[Kind]:
        """The kinds of call that a service makes in the hour that begins at `at`."""
        grown = (at - self.day(0.5)) / max(1.0, self.end - self.day(0.5))
        for kind in service.kinds:
            if kind is _TRIAGE and at >= self.day(0.7, 9):
                yield _TRIAGE_CHEAPER
            elif kind is _REPLY and 0 <= at - self.day(0.63, 9) < 7 * HOUR:
                # A release puts the time into the first line of the prompt: all is written to the cache, nothing read.
                yield replace(kind, cached=0.0, written=0.84)
            elif kind is _EXTRACT and 0 <= at - self.day(0.8, 13) < 3 * HOUR:
                yield replace(kind, per_day=kind.per_day * 14)
            elif kind is _DEEP and grown > 0:
                yield replace(kind, per_day=kind.per_day * max(0.3, 1 - grown))
                yield replace(_NEW, per_day=_NEW.per_day * min(1.5, 0.15 + grown))
            elif kind.provider == "anthropic" and 0 <= at - (self.end - 10 * HOUR) // HOUR * HOUR < HOUR:
                yield replace(kind, failing=0.3)
            else:
                yield kind

    def calls(self, service: Service, hour: int) -> list[Call]:
        """The calls of a service in an hour since 1970: the same whoever asks, and when."""
        began = hour * HOUR
        found = []
        for kind in self.kinds(service, began):
            dice = _dice(f"{self.seed}/{service.job}/{kind.name}/{kind.tier}/{hour}")
            mood = _dice(f"{self.seed}/{kind.feature}/{hour // 24}").lognormvariate(0, 0.09)
            expected = kind.per_day / 24 * kind.load(began + HOUR / 2) * mood
            found += [
                _drawn(dice, kind, began + dice.random() * HOUR, dice.randrange(service.instances))
                for _ in range(_poisson(dice, expected))
            ]
        return found

    def releases(self, service: Service, hour: int) -> list[tuple[float, int]]:
        """When processes of a service are restarted in an hour: Tuesdays and Thursdays, one after the other.

        Just after a scrape, however rare those are, since Prometheus cannot know what is spent between the last and the
        end.
        """
        weekday = (hour // 24 + 3) % 7
        if weekday not in {1, 3} or hour % 24 != 9 + sum(map(ord, service.job)) % 7:
            return []
        return [(hour * HOUR + 1200.0 * (1 + instance), instance) for instance in range(service.instances)]

    def happenings(self, service: Service) -> Iterator[Happening]:
        """All that a service does, for ever, in the order of time."""
        for hour in count(self.start // HOUR):
            found = [Happening(call.at, service, call.instance, call) for call in self.calls(service, hour)]
            found += [Happening(at, service, instance, None) for at, instance in self.releases(service, hour)]
            yield from sorted((what for what in found if what.at >= self.start), key=_AT)


class Happening(NamedTuple):
    """A call of a process of a service, or its restart."""

    at: float
    service: Service
    instance: int
    call: Call | None


_AT: Final = attrgetter("at")


def _dice(seed: str) -> Random:
    return Random(seed)  # noqa: S311


def _poisson(dice: Random, expected: float) -> int:
    if expected > 40:
        return max(0, round(dice.gauss(expected, math.sqrt(expected))))
    least, number, product = math.exp(-expected), 0, dice.random()
    while product > least:
        number += 1
        product *= dice.random()
    return number


def _drawn(dice: Random, kind: Kind, at: float, instance: int) -> Call:
    prompt = max(1, int(kind.prompt * dice.lognormvariate(-0.12, 0.5)))
    output = max(1, int(kind.output * dice.lognormvariate(-0.12, 0.5))) if kind.output else 0
    seconds = kind.seconds * dice.lognormvariate(-0.12, 0.5)
    fate = dice.random()
    cached = int(prompt * min(1 - kind.written, kind.cached * dice.uniform(0.6, 1.25))) if kind.cached else 0
    return Call(
        at,
        instance,
        kind,
        prompt,
        output,
        cached,
        int(prompt * kind.written),
        seconds,
        seconds * dice.uniform(0.08, 0.25),
        dice.choice(_ERRORS) if fate < kind.failing else None,
        kind.failing <= fate < kind.failing + kind.aborted,
        fate > 1 - kind.doubtful,
    )


class Plan(NamedTuple):
    """A budget of the fleet whose limit follows from what will have been spent when the history ends."""

    name: str
    period: str
    used: float
    """Share of the limit when its period ends, if things go on as in the last week."""
    scope: dict[str, str]


PLANS: Final = (
    Plan("company", "month", 0.84, {}),
    Plan("support", "7d", 1.12, {"team": "support"}),
    Plan("shop", "day", 0.62, {"team": "shop"}),
    Plan("research", "week", 0.71, {"team": "research"}),
    Plan("papers", "24h", 0.86, {"feature": "papers"}),
)
REFUSING: Final = Budget(
    "experiments", Decimal("0.0001"), scope={"feature": "experiment"}, period="day", policy="block"
)


def budgets(story: Story, book: PriceBook) -> tuple[Budget, ...]:
    """The fleet's budgets, with round limits."""
    week = max(story.start, story.end - 7 * DAY)
    found = []
    for plan in PLANS:
        if plan.period[0].isdigit():
            begin = story.end - (7 * DAY if plan.period == "7d" else DAY)
            rest = 0
        else:
            period = period_at(plan.period, story.end)
            begin, rest = period.start, period.end - story.end
        whole = _expected(story, book, plan.scope, max(begin, story.start), story.end)
        whole += _expected(story, book, plan.scope, week, story.end) / (story.end - week) * rest
        found.append(Budget(plan.name, _round(whole / plan.used), scope=plan.scope, period=plan.period))
    return (*found, REFUSING)


def _round(amount: float) -> Decimal:
    """To two digits."""
    return Decimal(f"{amount:.1e}").normalize() + 0


def _expected(story: Story, book: PriceBook, scope: Mapping[str, str], start: float, end: float) -> float:
    """USD that calls of a scope will cost, as far as their means tell."""
    total = 0.0
    for service in SERVICES:
        for began in range(int(start) // HOUR * HOUR, int(end), HOUR):
            share = (min(end, began + HOUR) - max(start, began)) / HOUR
            for kind in story.kinds(service, began):
                if all(getattr(kind, name) == value for name, value in scope.items()):
                    total += kind.per_day / 24 * kind.load(began + HOUR / 2) * share * _mean(kind, book, began)
    return total


_means: dict[Kind, float] = {}


def _mean(kind: Kind, book: PriceBook, at: int) -> float:
    """USD that a call of a kind costs."""
    usage = replace(kind, per_day=0)
    found = _means.get(usage)
    if found is None:
        card = book.card(kind.provider, kind.model, at * 10**9, kind.tier, None)
        cost = (
            card
            and card.cost(
                Usage.from_inclusive(
                    input=kind.prompt,
                    output=kind.output,
                    cache_read=int(kind.prompt * kind.cached),
                    cache_write=int(kind.prompt * kind.written),
                )
            ).total
        )
        found = _means[usage] = float(dollars(cost or 0)) * (1 - kind.failing)
    return found


Spent = Counter[tuple[str, str, str, str]]
"""Picodollars by job, provider, requested model and team; an empty text where there is none."""


class Process:
    """One process of a service: the processor, with a clock and a meter provider that are ours.

    `meters` is asked for the MeterProvider of a process with these resource attributes.
    """

    def __init__(
        self,
        job: str,
        instance: str,
        clock: Clock,
        meters: metrics.MeterProvider,
        resource: Mapping[str, Any],
        budgets: Sequence[Budget],
        store: Store,
        book: PriceBook,
    ) -> None:
        self.job = job
        self.instance = instance
        self._processing = Processing(
            TracerProvider(resource=Resource(dict(resource)), shutdown_on_exit=False),
            meters,
            book=book,
            # The calendar of the budgets follows the simulated time.
            guard=lambda of, failed: Guard(budgets, book, store, resource=of, clock=clock, failed=failed),
            settings=Settings(dimensions=(*DIMENSIONS, "user.id", "session.id")),
            clock=clock,
        )
        self._contexts: dict[tuple[object, ...], Any] = {}

    def call(self, call: Call) -> None:
        """One call, which ends at once."""
        if (end := self.begin(call)) is not None:
            end()

    def begin(self, call: Call) -> Callable[[], None] | None:
        """Make a call, through the same door as the instrumentation's; returns how it ends, None if it was refused."""
        kind = call.kind
        request: dict[str, Any] = {
            "gen_ai.operation.name": kind.operation,
            "gen_ai.provider.name": kind.provider,
            "gen_ai.request.model": kind.model,
            "server.address": f"api.{kind.provider}.test",
        }
        if kind.tier is not None:
            request["costspan.service_tier"] = kind.tier
        token = otel.attach(self._context(call))
        try:
            decision = self._processing.observer.before(request, lambda: call.prompt * 4)
        finally:
            otel.detach(token)
        if decision is not None and decision.refuse is not None:
            return None
        return lambda: self._end(call, request, decision and decision.token)

    def _context(self, call: Call) -> Any:
        """Whom a call is for."""
        kind = call.kind
        person = call.prompt % kind.users + 1 if kind.users else 0
        whose = kind.team, kind.feature, kind.task, person
        context = self._contexts.get(whose)
        if context is None:
            user, session = (f"user-{person}", f"desk-{person}") if person else (None, None)
            named = attributes_of(team=kind.team, feature=kind.feature, task=kind.task, user=user, session=session)
            context = self._contexts[whose] = attributed(named)[0] if named else otel.get_current()
        return context

    def _end(self, call: Call, request: Mapping[str, Any], token: object) -> None:
        kind = call.kind
        first_chunk = call.first_chunk if kind.streamed and call.error is None else None
        if call.error is not None:
            end = {**request, "error.type": call.error}
        else:
            end = {**request, "gen_ai.response.model": kind.model, "gen_ai.usage.input_tokens": call.prompt}
            if call.output:
                end["gen_ai.usage.output_tokens"] = call.output
            if call.aborted:
                # What the engine knows of a stream that the application stopped reading.
                end["gen_ai.usage.output_tokens"] = call.output // 2
                end["costspan.usage.estimated"] = end["costspan.stream.aborted"] = True
            else:
                if call.doubtful:
                    if int(call.at // DAY) % 7 == 2:
                        # On Saturdays a reader of ours fails, as where an SDK answers in another shape than before.
                        self._processing.table.failed("response")
                    end["gen_ai.usage.cache_read.input_tokens"] = call.prompt + 100
                elif kind.cached:
                    end["gen_ai.usage.cache_read.input_tokens"] = call.cached
                if kind.written:
                    end["gen_ai.usage.cache_write.input_tokens"] = call.written
                if kind.reasoning:
                    end["gen_ai.usage.reasoning.output_tokens"] = int(call.output * kind.reasoning)
        self._processing.observer.after(token, end, int(call.at * 1e9), call.seconds, first_chunk, None)

    def die(self) -> None:
        """End in the middle of a call, as a process does that is killed: what it held is charged when it expires."""
        request = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": "claude-opus-5",
            "gen_ai.request.max_tokens": 4000,
        }
        token = otel.attach(attributed(attributes_of(team="support", feature="tickets", task="reply"))[0])
        try:
            self._processing.observer.before(request, lambda: 30_000)
        finally:
            otel.detach(token)

    def calls(self) -> int:
        """Calls so far, of any status but refused."""
        return sum(sum(row.calls.values()) for row in self._processing.table.rows())

    def spent(self) -> Spent:
        """What the processor has counted so far, to the picodollar."""
        cost: Spent = Counter()
        for row in self._processing.table.rows():
            team = row.dimensions.get("costspan.team", "")
            cost[self.job, row.provider or "", row.request_model or "", team] += sum(row.cost.values())
        return cost


class Clock:
    """The time of the fleet, unix seconds."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class _Store(MemoryStore):
    """The budgets' accounts, read many times between two changes: all processes show all of them."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._answers: dict[tuple[Claim, ...], Answer] = {}

    def read(self, claims: Iterable[Claim]) -> Answer:
        key = tuple(claims)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answers[key] = super().read(key)
        return answer

    def reserve(
        self, key: str, amount: int, claims: Sequence[Claim], ttl: float, first: Sequence[Settlement] = ()
    ) -> Answer:
        self._answers.clear()
        return super().reserve(key, amount, claims, ttl, first)

    def settle(self, settlements: Sequence[Settlement]) -> list[Answer]:
        self._answers.clear()
        return super().settle(settlements)


class _First(Recorder):
    """A process of its own: each has the first generation of the processor's counters."""

    def get_meter(
        self, name: str, version: str | None = None, schema_url: str | None = None, attributes: Attributes | None = None
    ) -> metrics.Meter:
        attributes = {**(attributes or {}), GENERATION_ATTRIBUTE: "0"}
        return super().get_meter(name, version, schema_url, attributes)


class _Ending(NamedTuple):
    """The end of a call that is under way."""

    at: float
    number: int
    """Of two at the same moment the one that began first."""
    where: tuple[str, int]
    process: Process
    end: Callable[[], None]


@dataclass
class _Live:
    process: Process
    recorder: Recorder


class Fleet:
    """The services, from a story's start on, as far as `advance()` has brought them."""

    def __init__(self, story: Story, book: PriceBook | None = None) -> None:
        self.story: Final = story
        self.book: Final = book or PriceBook.bundled()
        self.history: Final = History()
        self.clock: Final = Clock(story.start)
        self.budgets: Final = budgets(story, self.book)
        self._store = _Store(self.clock)
        self._live: dict[tuple[str, int], _Live] = {}
        self._shown: set[Group] = set()
        self._ending: list[_Ending] = []
        self._begun = 0
        self._gone: Spent = Counter()
        self._gone_calls = 0
        self.one_call_processes = 0
        """That have come and gone."""
        self.midnights: dict[int, Spent] = {}
        """What had been spent by each midnight (UTC)."""
        for service in SERVICES:
            for instance in range(service.instances):
                self._start(service, instance)
        self._happenings = merge(*map(story.happenings, SERVICES), key=_AT)
        self._next = next(self._happenings)
        dice = _dice(f"{story.seed}/reports")
        self._reports = sorted(
            story.start + dice.random() * (story.end - story.start) for _ in range(story.one_call_processes)
        )
        self._note(story.start)

    def _start(self, service: Service, number: int) -> None:
        live = self._live.get((service.job, number))
        if live is not None:
            if service.job == "support":
                live.process.die()
            self._gone += live.process.spent()
            self._gone_calls += live.process.calls()
        self._live[service.job, number] = self._made(service.job, f"{service.job}-{'ab'[number]}:9464")

    def _made(self, job: str, instance: str) -> _Live:
        resource = {
            "service.name": job,
            "service.instance.id": instance,
            "service.version": "1.0",
            "telemetry.sdk.language": "python",
        }
        recorder = _First(self.history, {"job": job, "instance": instance}, resource)
        process = Process(job, instance, self.clock, recorder, resource, self.budgets, self._store, self.book)
        return _Live(process, recorder)

    def advance(self, until: int) -> None:
        """Make all calls before `until` (unix seconds), and what else happens."""
        ending = self._ending
        while (ending and ending[0].at < until) or self._next.at < until:
            if ending and ending[0].at <= self._next.at:
                over = heappop(ending)
                self.clock.now = over.at
                # A process that has ended in the meantime tells nobody any more.
                if over.process is self._live[over.where].process:
                    over.end()
                continue
            at, service, instance, call = self._next
            self.clock.now = at
            where = service.job, instance
            if call is None:
                self._start(service, instance)
            elif (end := self._live[where].process.begin(call)) is not None:
                self._begun += 1
                heappush(ending, _Ending(at + call.seconds, self._begun, where, self._live[where].process, end))
            self._next = next(self._happenings)
        self.clock.now = until

    def scrape(self) -> None:
        """Keep what all processes show now."""
        now = int(self.clock.now)
        shown = {group for live in self._live.values() for group in live.recorder.scrape(now)}
        while self._reports and self._reports[0] < now:
            shown.update(self._report(self._reports.pop(0), now))
        for group in self._shown - shown:
            group.end(now)
        self._shown = shown
        if now % DAY == 0:
            self._note(now)

    def _report(self, at: float, now: int) -> list[Group]:
        """A process that makes one call, is scraped once and ends."""
        number = self.one_call_processes
        self.one_call_processes += 1
        live = self._made(REPORTING, f"report-{number:03}:9464")
        self.clock.now = at
        live.process.call(_drawn(_dice(f"{self.story.seed}/report/{number}"), REPORT, at, 0))
        self.clock.now = now
        self._gone += live.process.spent()
        self._gone_calls += live.process.calls()
        return live.recorder.scrape(now)

    def _note(self, at: int) -> None:
        self.midnights[at] = self.spent()

    def targets(self) -> dict[str, Recorder]:
        """The running processes by job and instance, such as `shop/shop-a:9464`."""
        return {f"{live.process.job}/{live.process.instance}": live.recorder for live in self._live.values()}

    # ---------------------------------------------------------------- what really happened

    def calls(self) -> int:
        """Calls so far, of any status but refused."""
        return self._gone_calls + sum(live.process.calls() for live in self._live.values())

    def spent(self) -> Spent:
        """All that has been spent since the start."""
        return sum((live.process.spent() for live in self._live.values()), Counter(self._gone))

    def since(self, moment: int) -> Spent:
        """What has been spent since a midnight (unix seconds), or since the start if that came later."""
        return self.spent() - self.midnights[max(moment, self.story.start)]
