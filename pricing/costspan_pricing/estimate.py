"""What calls will cost, before they are made: a call, a conversation, the same usage on other models, a month.

Every figure goes through `RateCard.cost`, so that an estimate and the bill differ by what was assumed and nothing else.
What was assumed is in the ``flags`` of the cost:

``output_given``, ``output_learned``, ``output_assumed``
    the length of the answer is the caller's, the mean of answers seen, or `ASSUMED_OUTPUT_TOKENS`;
``upper_bound``
    the answer is as long as it may be, and nothing is read from the cache;
``output_unbounded``
    nobody said how long the answer may be, so there is no bound;
``input_by_characters``
    tokens were counted as characters / 4: a rule for English, and no bound for other text;
``cache_unpriced``
    the book has no rate for the cache: its tokens are plain input;
``duration_unknown``
    the model is paid by the time it computes, and nobody said how long that takes.

>>> from costspan_pricing import PriceBook
>>> estimator = Estimator(PriceBook.bundled(), at_ns=1_763_874_000_000_000_000)
>>> answer = estimator.call("openai/gpt-4.1", input_tokens=10_000, output_tokens=500, max_tokens=1_000)
>>> answer.expected.status, f"{answer.expected.usd:.3f}", f"{answer.upper.usd:.3f}"
('estimated', '0.024', '0.028')
"""

from __future__ import annotations

import math
import threading
from collections import Counter, OrderedDict
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from costspan_pricing.cost import Cost, Note, composed
from costspan_pricing.meters import METERS
from costspan_pricing.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from costspan_pricing.book import PriceBook
    from costspan_pricing.card import RateCard

ASSUMED_OUTPUT_TOKENS: Final = 1024
"""The length of an answer of which nothing is known, in tokens."""

CHARACTERS_PER_TOKEN: Final = 4
"""How many characters make a token where tokens were not counted. Rounded up: "Hello" are two."""

MOST_TURNS: Final = 10_000
"""Turns of a conversation that are computed; each is a price of its own."""

_WRITES: Final = ("cache_write_5m", "cache_write_30m", "cache_write_1h", "cache_write_12h")
"""Meters of cache writes, the shortest life first: what a client gets that asks for nothing else."""


class Estimate(NamedTuple):
    """What a call will cost. Tokens are those of ``expected``; ``max_output_tokens`` is the limit, if there is one."""

    expected: Cost
    upper: Cost
    """What it costs at most. No figure where nothing limits the answer, and then ``flags`` says so."""
    p95: Cost | None
    """What 19 of 20 such calls stay under by the length of their answer; None where no lengths were learned."""
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    max_output_tokens: int | None


class Turn(NamedTuple):
    """One call of a conversation. ``cached_tokens`` is the part of ``input_tokens`` that is read from the cache."""

    number: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    expected: Cost
    upper: Cost


class Conversation(NamedTuple):
    """What a conversation will cost: its turns, and the sums over them."""

    turns: tuple[Turn, ...]
    expected: Cost
    upper: Cost
    input_tokens: int
    cached_tokens: int
    output_tokens: int


class Offer(NamedTuple):
    """What a usage costs on one model. ``ratio`` is to the cheapest that is not free; None where some has no price."""

    model: str
    cost: Cost
    ratio: float | None


class Comparison(NamedTuple):
    """The same usage on several models: those with a price, the cheapest first, and the others.

    A model of which the book prices only some of the usage is with the others: its sum would look cheap.
    """

    priced: tuple[Offer, ...]
    unpriced: tuple[Offer, ...]


class Projection(NamedTuple):
    """What a calendar month will have cost at its end. Amounts in USD, exact to a picodollar."""

    month: str
    spent: Decimal
    """What is listed of the month so far."""
    expected: Decimal
    low: Decimal | None
    high: Decimal | None
    confidence: float | None
    """How often the month ends between ``low`` and ``high``, if days go on to vary as they did; None: no interval."""
    method: str
    """How the figures were made, in words."""
    days: int
    """Days that the forecast rests on."""
    remaining: int
    """Days of the month that are forecast, the running one included."""
    unobserved: int
    """Days of the month that are over and of which nothing is known; nothing is counted for them."""


class Estimator:
    """Prices what has not been called yet, by one book at one instant, in one service tier and region.

    Models are named provider/model. One that the book does not know gives a `Cost` without a figure, whose ``status``
    is the reason. Immutable, and safe to share between threads.
    """

    def __init__(self, book: PriceBook, at_ns: int, *, tier: str | None = None, geo: str | None = None) -> None:
        """``at_ns`` is the instant (unix nanoseconds) whose prices hold; ``tier`` and ``geo`` are as for a card."""
        self._book = book
        self._at_ns = at_ns
        self._tier = tier
        self._geo = geo

    def call(
        self,
        model: str,
        *,
        input_tokens: int | None = None,
        characters: int | None = None,
        characters_per_token: float | str = CHARACTERS_PER_TOKEN,
        output_tokens: int | Lengths | None = None,
        max_tokens: int | None = None,
        cache_hit_rate: float | str = 0,
        seconds: float | None = None,
    ) -> Estimate:
        """What one call will cost.

        input_tokens, characters: the length of the prompt, one of the two; characters are divided by
            ``characters_per_token`` and rounded up.
        output_tokens: how long the answer will be: a number of tokens, or what `OutputLengths.of` has learned. By
            default `ASSUMED_OUTPUT_TOKENS`, which is what a budget assumes too; never more than ``max_tokens``.
        max_tokens: how long the request allows the answer to be; 0 for an embedding. The book knows no limits of
            models, and an assumed length is no bound, so without it ``upper`` has no figure.
        cache_hit_rate: the part of the prompt, 0 to 1, that will be read from the cache. The upper bound reads nothing
            from there, and writes that part where the provider charges more for writing than for input.
        seconds: how long the call computes, for models that are paid by the hour.

        Raises ``ValueError`` for arguments that make no sense, naming them.
        """
        prompt = _prompt(input_tokens, characters, characters_per_token)
        hit = _share("cache_hit_rate", cache_hit_rate)
        limit = None if max_tokens is None else _count("max_tokens", max_tokens)
        output, how = _expected_output(output_tokens, limit)
        known = self._card(model)
        if isinstance(known, Cost):
            p95 = known if isinstance(output_tokens, Lengths) else None
            return Estimate(known, known, p95, prompt, 0, output, limit)
        said = ("input_by_characters",) if characters is not None else ()
        plan = _Plan(known, seconds)
        cached = _floor(hit * prompt)
        expected, read = plan.cost(prompt, cached, output, (how, *said))
        p95 = None
        if isinstance(output_tokens, Lengths):
            longer = output_tokens.p95 if limit is None else min(output_tokens.p95, limit)
            p95, _ = plan.cost(prompt, cached, longer, (how, *said))
        return Estimate(expected, plan.most(prompt, cached, limit, said), p95, prompt, read, output, limit)

    def conversation(
        self,
        model: str,
        *,
        messages: int,
        personas: int = 1,
        system_tokens: int = 0,
        message_tokens: int = 0,
        output_tokens: int | Lengths | None = None,
        max_tokens: int | None = None,
        cache_hit_rate: float | str | None = None,
        seconds: float | None = None,
    ) -> Conversation:
        """What a conversation will cost, in which every turn sends all that was said before.

        ``personas`` N take turns until each has sent ``messages`` M: N x M calls. Each persona has a system prompt of S
        = ``system_tokens`` of its own; before each call a message of U = ``message_tokens`` comes in (0 where the
        personas answer one another), and each answer has O = ``output_tokens`` (as for `call`). So turn t sends

            P(t) = S + t x U + (t - 1) x O        tokens, t = 1 ... N x M,

        and the sum grows with the square of the turns. What a persona can read from the cache is what it sent itself
        in its last turn: C(t) = P(t - N), and nothing in its first turn. Of that, floor(``cache_hit_rate`` x C(t)) is
        read; the rest of P(t) is written where the provider has a price for cache writes (of the shortest life that it
        sells), and plain input where it has none. With ``cache_hit_rate=None`` nothing is cached, nor written; with 0
        everything is written and nothing is ever read.

        Rates are those of the length of each prompt, so that a conversation which crosses 200,000 tokens costs more
        from that turn on. The upper bound takes ``max_tokens`` for each answer, which makes later prompts longer too,
        and reads nothing from the cache. ``seconds`` is the time that each call computes.

        Conversations that share nothing are computed one at a time, with ``personas=1``. Raises ``ValueError`` for
        arguments that make no sense, and for more than `MOST_TURNS` turns.
        """
        speakers, sent = _count("personas", personas, 1), _count("messages", messages, 1)
        system, message = _count("system_tokens", system_tokens), _count("message_tokens", message_tokens)
        hit = None if cache_hit_rate is None else _share("cache_hit_rate", cache_hit_rate)
        limit = None if max_tokens is None else _count("max_tokens", max_tokens)
        output, how = _expected_output(output_tokens, limit)
        count = speakers * sent
        if count > MOST_TURNS:
            raise ValueError(f"personas x messages are {count:,} turns; {MOST_TURNS:,} are computed at most")

        def prompt(turn: int, answer: int) -> int:
            return system + turn * message + (turn - 1) * answer

        known = self._card(model)
        plan = known if isinstance(known, Cost) else _Plan(known, seconds)
        turns = []
        for turn in range(1, count + 1):
            length, read = prompt(turn, output), 0
            if isinstance(plan, Cost):
                expected = upper = plan
            else:
                cached = _floor(hit * prompt(turn - speakers, output)) if hit is not None and turn > speakers else 0
                longest = length if limit is None else prompt(turn, limit)
                expected, read = plan.cost(length, cached, output, (how,), write=hit is not None)
                upper = plan.most(longest, longest if hit is not None else 0, limit)
            turns.append(Turn(turn, length, read, output, expected, upper))
        return Conversation(
            tuple(turns),
            _sum([turn.expected for turn in turns]),
            _sum([turn.upper for turn in turns]),
            sum(turn.input_tokens for turn in turns),
            sum(turn.cached_tokens for turn in turns),
            sum(turn.output_tokens for turn in turns),
        )

    def compare(self, usage: Usage | Mapping[str, float], models: Iterable[str]) -> Comparison:
        """What one usage costs on each of several models.

        ``usage`` is a `Usage`, or meter to quantity in natural units (tokens, seconds), each token under one meter
        only. ``models`` are names such as "openai/gpt-4.1"; a provider alone, "openai", is all its models. Where a
        model has no rates for the cache, tokens read from it or written to it are plain input, and the cost is
        ``estimated`` with the flag ``cache_unpriced``. Raises ``ValueError`` for an unknown meter, and for no usage.
        """
        if not isinstance(usage, Usage):
            if unknown := next((meter for meter in usage if meter not in METERS), None):
                raise ValueError(f"unknown meter {unknown!r}; known are {', '.join(METERS)}")
            usage = Usage.from_inclusive(extra=usage)
        if not usage:
            raise ValueError("a usage of nothing costs nothing anywhere: give at least one quantity")
        priced: list[tuple[int, str, Cost]] = []
        unpriced: list[Offer] = []
        for name in sorted({one for written in models for one in self._listed(written)}):
            known = self._card(name)
            cost = known if isinstance(known, Cost) else _without_cache(known, usage)
            if cost.total is None or cost.status == "partial":
                unpriced.append(Offer(name, cost, None))
            else:
                priced.append((cost.total, name, cost))
        priced.sort(key=lambda offer: offer[:2])
        cheapest = next((total for total, _, _ in priced if total), 1)
        return Comparison(tuple(Offer(name, cost, total / cheapest) for total, name, cost in priced), tuple(unpriced))

    def monthly(self, model: str, usage: Usage | Mapping[str, float]) -> Cost:
        """What a month's usage of a model or a hosting product costs, as `monthly` does."""
        known = self._card(model)
        if isinstance(known, Cost):
            return known
        return monthly(known, usage if isinstance(usage, Usage) else Usage.from_inclusive(extra=usage))

    def project(
        self,
        days: Mapping[date, Amount | None] | Amount,
        *,
        month: str | None = None,
        confidence: float = 0.8,
    ) -> Projection:
        """What a month will have cost, as `project` does; the day of the estimator's instant is still running."""
        today = datetime.fromtimestamp(self._at_ns // 10**9, UTC).date()
        return project(days, month=month, today=today, confidence=confidence)

    def _card(self, name: str) -> RateCard | Cost:
        """The rates of a model, or the cost that says why there are none."""
        provider, slash, model = name.partition("/")
        if provider and slash and model:
            card = self._book.card(provider, model, self._at_ns, self._tier, self._geo)
            if card is not None:
                return card
        elif slash:
            raise ValueError(f"{name!r}: models are named provider/model, such as openai/gpt-4.1")
        return Cost.unpriced("unknown_model" if self._book.knows(provider) else "unknown_provider")

    def _listed(self, name: str) -> Sequence[str]:
        if "/" in name:
            return (name,)
        models = self._book.models(name) if self._book.knows(name) else ()
        return [f"{name}/{model}" for model in models] or (name,)


def monthly(card: RateCard, usage: Usage) -> Cost:
    """What a month's usage costs, the free allowance of each meter taken off once; the flag names each one used.

    Allowances belong to hosting prices. A single call cannot know what is left of one and costs the list price.
    """
    billed: dict[str, int] = {}
    flags = []
    for meter, quantity in usage.quantities.items():
        rate = card.rates().get(meter)
        allowance = 0 if rate is None else rate.allowance
        billed[meter] = max(0, quantity - allowance)
        if allowance:
            flags.append(f"allowance:{meter}")
    cost = card.cost(Usage(billed, inconsistent=usage.inconsistent))
    return composed(
        cost.total, cost.components, cost._note._replace(flags=(*cost.flags, *flags)), cost._usage, cost._sheet
    )


class _Plan:
    """Turns counts of a call into costs, by one card."""

    def __init__(self, card: RateCard, seconds: float | None) -> None:
        self._card = card
        self._time = Usage()
        if card.timed and seconds is not None:
            self._time = Usage.from_inclusive(extra={"compute_seconds": seconds})
        self._untimed = card.timed and seconds is None

    def cost(
        self, prompt: int, cached: int, output: int, flags: tuple[str, ...], *, write: bool = False
    ) -> tuple[Cost, int]:
        """The cost of a call, and how many tokens it reads from the cache. With ``write``, the others are written."""
        if self._untimed:
            return _no_figure(*flags, "duration_unknown"), 0
        rates = self._card.rates(prompt)
        reads = "cache_read" in rates
        if not reads and not self._card.free and (cached or write):
            flags = (*flags, "cache_unpriced")
        read = cached if reads else 0
        meter = next((meter for meter in _WRITES if meter in rates), "input") if write and reads else "input"
        return self._priced({"cache_read": read, meter: prompt - read, "output": output}, flags), read

    def most(self, prompt: int, cached: int, limit: int | None, flags: tuple[str, ...] = ()) -> Cost:
        """What a call costs at most, of which ``cached`` tokens would have been read from the cache, or written."""
        flags = ("upper_bound", *flags)
        if self._untimed:
            return _no_figure(*flags, "duration_unknown")
        if limit is None and not self._card.free:
            return _no_figure(*flags, "output_unbounded")
        output = limit or 0
        rates = self._card.rates(prompt)
        bound = self._priced({"input": prompt, "output": output}, flags)
        writes = next((meter for meter in _WRITES if meter in rates), None)
        if cached and writes is not None and "cache_read" in rates:
            written = self._priced({writes: cached, "input": prompt - cached, "output": output}, flags)
            bound = max(written, bound, key=lambda cost: cost.total or 0)
        # The sum of some parts is no bound.
        return composed(None, {}, bound._note) if bound.status == "partial" else bound

    def _priced(self, quantities: dict[str, int], flags: tuple[str, ...]) -> Cost:
        usage = Usage(quantities)
        if self._time:
            usage += self._time
        return _marked(self._card.cost(usage), flags)


def _marked(cost: Cost, flags: tuple[str, ...]) -> Cost:
    """The same figure, said to be an estimate and why."""
    note = cost._note
    status = "estimated" if note.status == "priced" else note.status
    note = note._replace(status=status, flags=(*note.flags, *flags))
    return composed(cost.total, cost.components, note, cost._usage, cost._sheet)


def _no_figure(*flags: str) -> Cost:
    return composed(None, {}, Note("no_usage", flags))


def _sum(costs: Sequence[Cost]) -> Cost:
    """Their sum, added in pairs: one after the other, the list of parts would be copied at each step."""
    while len(costs) > 1:
        pairs = [one + other for one, other in zip(costs[::2], costs[1::2], strict=False)]
        costs = pairs + list(costs[len(pairs) * 2 :])
    return costs[0]


def _without_cache(card: RateCard, usage: Usage) -> Cost:
    """The price of a usage, in which cache tokens that the card has no rate for are plain input of their modality."""
    rates = card.rates(usage._prompt)
    moved: dict[str, int] = {}
    for meter, quantity in usage.quantities.items():
        known = METERS.get(meter)
        billed = meter
        if known is not None and known.component in {"cache_read", "cache_write"} and meter not in rates:
            plain = f"input_{meter.rpartition('_')[2]}"
            billed = plain if plain in METERS else "input"
        moved[billed] = moved.get(billed, 0) + quantity
    if card.free or moved == usage.quantities:
        return card.cost(usage)
    return _marked(card.cost(Usage(moved, inconsistent=usage.inconsistent)), ("cache_unpriced",))


# ------------------------------------------------------------------ what is learned of answers


class Lengths(NamedTuple):
    """How long answers were, in tokens: the mean, rounded up, and what half and 95 % of them do not exceed.

    The mean is what many calls cost together divided by their number; the median of lengths that are skewed, as they
    are, would be too little. ``p50`` and ``p95`` are at most 1/16 too large, and never too small.
    """

    calls: int
    mean: int
    p50: int
    p95: int


_WINDOW: Final = 1_000
_KEYS: Final = 1_000
_ENOUGH: Final = 20
"""Fewer lengths say nothing of the 95th percentile: one in twenty lies above it."""


class OutputLengths:
    """Learns how long answers are, for each key, such as (model, task), from the last 1,000 to 2,000 of them.

    Bounded: the 1,000 keys that were used last are kept, each with a few hundred counters at most. Safe for threads.
    Those of other processes can be pickled, and merged here.

    >>> lengths = OutputLengths()
    >>> for tokens in range(1, 101):
    ...     lengths.observe(("gpt-4.1", "summary"), tokens)
    >>> lengths.of(("gpt-4.1", "summary"), ("gpt-4.1", None))
    Lengths(calls=100, mean=51, p50=51, p95=95)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[Hashable, _Answers] = OrderedDict()

    def observe(self, key: Hashable, tokens: int) -> None:
        """Add the length of one answer. Raises ``ValueError`` for anything but a whole number that is not negative."""
        tokens = _count("tokens", tokens)
        with self._lock:
            self._answers(key).add(tokens)

    def of(self, *keys: Hashable) -> Lengths | None:
        """What is known of the first of these keys that was seen at least 20 times; None if none was.

        The latest lengths, one in 32 at most, may not be in it yet: what was computed is kept for a while.
        """
        with self._lock:
            for key in keys:
                answers = self._seen.get(key)
                if answers is not None and answers.calls >= _ENOUGH:
                    return answers.lengths()
        return None

    def merge(self, other: OutputLengths) -> None:
        """Add what another has learned; the other is not changed."""
        theirs = other.__getstate__()
        with self._lock:
            for key, answers in theirs.items():
                self._answers(key).merge(answers)

    def _answers(self, key: Hashable) -> _Answers:
        """What was seen of a key, made if there is nothing; the key counts as just used."""
        answers = self._seen.get(key)
        if answers is None:
            if len(self._seen) >= _KEYS:
                self._seen.popitem(last=False)
            answers = self._seen[key] = _Answers()
        else:
            self._seen.move_to_end(key)
        return answers

    def __getstate__(self) -> dict[Hashable, _Answers]:
        with self._lock:
            return {key: answers.copy() for key, answers in self._seen.items()}

    def __setstate__(self, state: dict[Hashable, _Answers]) -> None:
        self._lock = threading.Lock()
        self._seen = OrderedDict(state)


class _Answers:
    """The lengths of one key, in two windows: the one that is being filled, and the full one before it."""

    __slots__ = ("_buckets", "_counts", "_known", "_old_for", "_totals")

    def __init__(self) -> None:
        self._counts, self._totals = [0, 0], [0, 0]
        self._buckets: tuple[dict[int, int], dict[int, int]] = {}, {}
        self._known: Lengths | None = None
        self._old_for = 0
        """How many more lengths may come before what is known is computed anew."""

    @property
    def calls(self) -> int:
        return sum(self._counts)

    def add(self, tokens: int) -> None:
        if self._counts[0] >= _WINDOW:
            self._counts, self._totals = [0, self._counts[0]], [0, self._totals[0]]
            self._buckets = {}, self._buckets[0]
            self._known = None
        self._counts[0] += 1
        self._totals[0] += tokens
        bucket = _bucket(tokens)
        self._buckets[0][bucket] = self._buckets[0].get(bucket, 0) + 1
        self._old_for -= 1

    def merge(self, other: _Answers) -> None:
        for window in (0, 1):
            self._counts[window] += other._counts[window]
            self._totals[window] += other._totals[window]
            for bucket, count in other._buckets[window].items():
                self._buckets[window][bucket] = self._buckets[window].get(bucket, 0) + count
        self._known = None

    def lengths(self) -> Lengths:
        known = self._known
        if known is None or self._old_for < 0:
            calls = self.calls
            buckets = dict(self._buckets[1])
            for bucket, count in self._buckets[0].items():
                buckets[bucket] = buckets.get(bucket, 0) + count
            ordered = sorted(buckets.items())
            mean = -(-sum(self._totals) // calls)
            known = self._known = Lengths(calls, mean, _quantile(ordered, calls, 50), _quantile(ordered, calls, 95))
            self._old_for = calls // 32
        return known

    def copy(self) -> _Answers:
        new = _Answers()
        new.merge(self)
        return new


def _bucket(tokens: int) -> int:
    """The bucket of a length: exact below 32, then sixteen to each doubling.

    >>> [_bucket(tokens) for tokens in (0, 31, 32, 33, 34, 1023, 1024)]
    [0, 31, 32, 32, 33, 111, 112]
    """
    shift = max(0, tokens.bit_length() - 5)
    return 16 * shift + (tokens >> shift)


def _quantile(buckets: Sequence[tuple[int, int]], calls: int, percent: int) -> int:
    """The largest length in the bucket that holds the quantile."""
    rank = -(-calls * percent // 100)
    last = 0
    for bucket, count in buckets:
        last = bucket
        rank -= count
        if rank <= 0:
            break
    shift = max(0, last // 16 - 1)
    return ((last - 16 * shift + 1) << shift) - 1


# ------------------------------------------------------------------ the month

Amount = Decimal | str | float
"""An amount in USD; text and `Decimal` are exact."""

_HISTORY: Final = 28
"""Days that a forecast looks back on: four of each weekday, and recent."""


def project(
    days: Mapping[date, Amount | None] | Amount,
    *,
    month: str | None = None,
    today: date | None = None,
    confidence: float = 0.8,
) -> Projection:
    """What a calendar month will have cost: what was spent of it, and a forecast of its other days.

    days: USD by date. A day between others that is not listed is one on which nothing was spent; None is a day of
        which nothing is known. Or one amount: that of a typical day, of which the whole month is made.
    month: such as "2026-12"; by default that of the last day listed, else of ``today``.
    today: the day that is still running. Its figure counts as spent, but as no whole day to learn from, and it is
        expected to end as its forecast says, or with what it has by now if that is more.
    confidence: of the interval, between 0 and 1.

    The forecast of a day is the mean of the last 28 days; from 14 days on, with each weekday seen twice, the mean of
    its weekday in them. The interval is Student's t for a sum of days that are independent and vary as those did: no
    trend is followed. One day alone gives a figure and no interval.

    Raises ``ValueError`` for a negative amount or one that is no number, a day after ``today``, a month of which
    nothing can be said, and a confidence that is none.
    """
    if isinstance(confidence, bool) or not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, such as 0.8, not {confidence!r}")
    if isinstance(days, (Decimal, str, float, int)):
        start = _month(month if month is not None else None if today is None else f"{today:%Y-%m}")
        typical = _pico("the amount of a day", days)
        length = _length(start)
        method = f"{length} days at the amount of one; nothing is known of how days vary"
        return Projection(f"{start:%Y-%m}", _usd(0), _usd(typical * length), None, None, None, method, 1, length, 0)

    listed = {day: None if usd is None else _pico(f"{day}", usd) for day, usd in sorted(days.items())}
    if not any(pico is not None for pico in listed.values()):
        raise ValueError("days must have at least one amount")
    first, last = next(iter(listed)), next(reversed(listed))
    if today is not None and last > today:
        raise ValueError(f"{last} lies in the future: today is {today}")
    start = _month(f"{last:%Y-%m}" if month is None else month)
    length = _length(start)
    known = {day: listed.get(day, 0) for day in _days(first, last)}
    inside = [start + timedelta(days=number) for number in range(length)]
    spent = sum(known.get(day) or 0 for day in inside)
    whole = {day: pico for day, pico in known.items() if pico is not None and day != today}
    # A running day that is all there is says more than nothing.
    sample = dict(list((whole or {last: known[last] or 0}).items())[-_HISTORY:])
    running = today if today in known and today in inside else None
    ahead = [day for day in inside if day > last or day == running]
    unobserved = sum(day < first or (day <= last and known[day] is None) for day in inside if day <= last)
    forecast = _Forecast(sample)
    expected = spent + sum(max(Fraction(0), forecast.of(day) - (known.get(day) or 0)) for day in ahead)
    low = high = level = None
    method = "the month is over"
    if ahead:
        method = forecast.method + (" (and that one is still running)" if not whole else "")
        if (spread := forecast.spread(ahead, confidence)) is not None:
            low, high, level = max(spent, round(expected) - spread), round(expected) + spread, confidence
    elif unobserved == length:
        raise ValueError(f"no day of {start:%Y-%m} is listed, and it is over")
    return Projection(
        f"{start:%Y-%m}",
        _usd(spent),
        _usd(round(expected)),
        None if low is None else _usd(low),
        None if high is None else _usd(high),
        level,
        method,
        len(sample),
        len(ahead),
        unobserved,
    )


class _Forecast:
    """The mean of a day, and how far days lie from it; amounts in picodollars."""

    def __init__(self, sample: Mapping[date, int]) -> None:
        count = len(sample)
        seen = Counter(day.weekday() for day in sample)
        by_weekday = count >= 14 and len(seen) == 7 and min(seen.values()) >= 2
        self._groups: dict[int | None, list[int]] = {}
        for day, pico in sample.items():
            self._groups.setdefault(day.weekday() if by_weekday else None, []).append(pico)
        self._by_weekday = by_weekday
        self._means = {group: Fraction(sum(days), len(days)) for group, days in self._groups.items()}
        self._freedom = count - len(self._groups)
        what = "mean of each weekday in" if by_weekday else "mean of"
        self.method = f"{what} {count} days, with Student's t for days that are independent and follow no trend"
        if count == 1:
            self.method = "the amount of one day; nothing is known of how days vary"

    def _group(self, day: date) -> int | None:
        return day.weekday() if self._by_weekday else None

    def of(self, day: date) -> Fraction:
        return self._means[self._group(day)]

    def spread(self, days: Sequence[date], confidence: float) -> int | None:
        """How far the sum of these days may lie from its forecast at this confidence; None without a sample."""
        if self._freedom < 1:
            return None
        squares = sum((pico - self._means[group]) ** 2 for group, picos in self._groups.items() for pico in picos)
        variance = squares / self._freedom
        # The days vary, and so do the means that they are compared with.
        ahead = Counter(self._group(day) for day in days)
        factor = len(days) + sum(Fraction(n * n, len(self._groups[group])) for group, n in ahead.items())
        return round(_student(self._freedom, confidence) * math.sqrt(variance * factor))


def _student(freedom: int, confidence: float) -> float:
    """The t that a variable of Student's distribution stays within (two-sided) at this confidence.

    >>> [round(_student(freedom, 0.95), 3) for freedom in (1, 2, 5, 30)]
    [12.706, 4.303, 2.571, 2.042]
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(freedom, middle) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _within(freedom: int, angle: float) -> float:
    """The part of Student's distribution within t = sqrt(freedom) x tan(angle): Abramowitz and Stegun 26.7.3 and 4."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for number in range(3 if odd else 2, freedom + 1, 2):
        total += term
        term *= (number - 1) / number * cosine * cosine
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def _month(text: str | None) -> date:
    """The first day of a month written as 2026-12."""
    if text is None:
        raise ValueError("month is missing, such as 2026-12")
    try:
        return datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC).date()
    except (ValueError, TypeError):
        raise ValueError(f"month must be written as 2026-12, not {text!r}") from None


def _length(start: date) -> int:
    # Day 1 and 31 days on is always in the next month, or its first day.
    return ((start + timedelta(days=31)).replace(day=1) - start).days


def _days(first: date, last: date) -> Iterable[date]:
    return (first + timedelta(days=number) for number in range((last - first).days + 1))


def _pico(what: str, usd: Amount) -> int:
    try:
        amount = Decimal("NaN") if isinstance(usd, bool) else Decimal(str(usd))
        if amount.is_finite() and amount >= 0:
            return int(amount.scaleb(12, _EXACT).to_integral_value(ROUND_HALF_EVEN, _EXACT))
    except InvalidOperation:
        pass
    raise ValueError(f"{what}: an amount is USD such as 12.50, not {usd!r}")


_EXACT: Final = Context(prec=100)


def _usd(pico: int) -> Decimal:
    return Decimal(pico).scaleb(-12, _EXACT)


# ------------------------------------------------------------------ reading arguments


def _count(name: str, value: Any, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number, {least} or more, not {value!r}")
    return value


def _fraction(name: str, value: float | str) -> Fraction:
    """The number that its digits say: 0.1 is a tenth."""
    try:
        return Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{name} must be a number, not {value!r}") from None


def _share(name: str, value: float | str) -> Fraction:
    share = _fraction(name, value)
    if not 0 <= share <= 1:
        raise ValueError(f"{name} must be between 0 and 1, not {value!r}")
    return share


def _floor(number: Fraction) -> int:
    return number.numerator // number.denominator


def _prompt(tokens: int | None, characters: int | None, per_token: float | str) -> int:
    if (tokens is None) == (characters is None):
        raise ValueError("give input_tokens or characters, one of the two")
    if tokens is not None:
        return _count("input_tokens", tokens)
    ratio = _fraction("characters_per_token", per_token)
    if ratio <= 0:
        raise ValueError(f"characters_per_token must be above 0, not {per_token!r}")
    return math.ceil(_count("characters", characters) / ratio)


def _expected_output(given: int | Lengths | None, limit: int | None) -> tuple[int, str]:
    """The expected length of an answer, and the flag that says how it is known."""
    if isinstance(given, Lengths):
        length, how = given.mean, "output_learned"
    elif limit == 0:
        length, how = 0, "output_given"
    elif given is not None:
        length, how = _count("output_tokens", given), "output_given"
    else:
        length, how = ASSUMED_OUTPUT_TOKENS, "output_assumed"
    return (length if limit is None else min(length, limit)), how
