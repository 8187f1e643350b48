"""The rules: each looks at the evidence, and gives the advice that it bears out."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise
from statistics import NormalDist, mean, median, stdev
from typing import TYPE_CHECKING, Final

from costspan.insight.advice.evidence import Call, Evidence, Kind, priced, usage_of
from costspan.insight.advice.model import MONTH, URGENCY, Advice, Category, Level, Savings, Step, Thresholds, advice_id
from costspan.insight.figures import HOUR, usd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from costspan_pricing import PriceBook, RateCard

_PICO: Final = Decimal(10) ** 12
_EXAMPLES: Final = 5


@dataclass(frozen=True)
class Case:
    """What rules work with: the evidence, prices of one instant, and what the user has said."""

    evidence: Evidence
    book: PriceBook
    at_ns: int
    limits: Thresholds
    candidates: tuple[str, ...] = ()
    """provider/model: those that the user holds good enough."""
    providers: tuple[str, ...] = ()
    """Providers that could be used besides those that are."""
    unhurried: frozenset[str] = frozenset()
    """Tasks whose answers nobody waits for."""

    def card(self, provider: str, model: str, tier: str = "") -> RateCard | None:
        """The rates of today; None also where the book has none for this tier."""
        card = self.book.card(provider, model, self.at_ns, tier or None)
        return None if card is None or "tier_unpriced" in card.flags or "fallback_price" in card.flags else card

    @property
    def month(self) -> Decimal:
        """USD that a month like the stretch costs."""
        return usd(self.evidence.total.cost) * MONTH / self.evidence.days

    def enough(self, calls: float, saving: Decimal) -> bool:
        """Whether this is worth an advice."""
        return calls >= self.limits.calls and saving >= self.limits.saving

    def advise(
        self,
        category: Category,
        subject: Mapping[str, str],
        title: str,
        calls: int,
        steps: Sequence[Step],
        kinds: Sequence[Kind],
        assumes: str,
        effort: Level,
        actions: Sequence[str],
        examples: Sequence[Call] = (),
    ) -> Advice | None:
        """The advice whose last step is what a month saves; None if that is too little."""
        saving = steps[-1].result
        if not self.enough(calls, saving):
            return None
        subject = {name: value for name, value in subject.items() if value}
        spread = _spread(self.evidence.daily(kinds))
        low = high = None
        if spread is not None:
            low, high = (_usd(saving * (1 + sign * spread)) for sign in (-1, 1))
            low = max(Decimal(0), low)
        share = saving / self.month if self.month else Decimal(0)
        priority: Level = (
            "high" if share >= Decimal(str(self.limits.high))
            else "medium" if share >= Decimal(str(self.limits.medium)) else "low"
        )  # fmt: skip
        return Advice(
            advice_id(category, subject),
            category,
            subject,
            priority,
            title,
            calls,
            calls / self.evidence.total.calls,
            tuple(call.id for call in examples[:_EXAMPLES]),
            Savings(saving, low, high),
            tuple(steps),
            assumes,
            effort,
            tuple(actions),
        )

    def notice(
        self, category: Category, title: str, calls: int, steps: Sequence[Step], actions: Sequence[str]
    ) -> Advice:
        """What is worth knowing, and has no figure of what it would save."""
        share = calls / self.evidence.total.calls
        return Advice(
            advice_id(category, {}), category, {}, "low", title, calls, share, (), None, tuple(steps),
            "A notice: what it would save, the calls do not tell.", "low", tuple(actions),
        )  # fmt: skip


def _spread(days: Sequence[float]) -> Decimal | None:
    """How far a month of days like these may lie from its mean at 80 %, as a share of it; None below four days."""
    count = len(days)
    if count < 4 or not any(days):
        return None
    z = NormalDist().inv_cdf(0.9)
    t = z + (z**3 + z) / (4 * (count - 1)) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * (count - 1) ** 2)
    month = float(MONTH)
    return Decimal(str(round(t * stdev(days) * math.sqrt(month + month**2 / count) / (mean(days) * month), 4)))


def _usd(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.01"), ROUND_HALF_EVEN)


def _exact(amount: Decimal) -> Decimal:
    """To six decimals: what a step shows is what the next one goes on with."""
    return amount.quantize(Decimal("0.000001"), ROUND_HALF_EVEN)


def _shown(number: Decimal | float) -> str:
    return f"{Decimal(str(number)).normalize():f}"


def _a_month(case: Case, saved: Decimal, what: str = "saved a month") -> Step:
    """USD of the stretch made USD of a month."""
    days = case.evidence.days.quantize(Decimal("0.000001"))
    result = _usd(saved / days * MONTH)
    return Step(what, f"{_shown(saved)} / {_shown(days)} * {MONTH}", result, "USD")


def _tokens(card: RateCard, usage: Mapping[str, float], prompt: float, what: str) -> Step | None:
    """What tokens cost by a card, with each meter's tokens and rate."""
    rates, parts = card.rates(math.floor(prompt)), []
    for meter, tokens in usage.items():
        rate = rates.get(meter) or (rates.get("input") if meter.startswith("cache_") else None)
        if rate is None:
            return None
        per_million = Decimal(rate.numerator * 10**6) / rate.denominator / _PICO
        parts.append(f"{_shown(round(tokens))} * {_shown(per_million)} / 1000000")
    cost = priced(card, {meter: round(tokens) for meter, tokens in usage.items()}, prompt)
    return None if cost is None else Step(what, " + ".join(parts), _exact(cost), "USD")


def _difference(before: Step, after: Step) -> Step:
    how = f"{_shown(before.result)} - {_shown(after.result)}"
    return Step("the difference", how, before.result - after.result, "USD")


def _named(provider: str, model: str) -> str:
    return f"{provider}/{model}"


def _for_task(kind: Kind) -> str:
    return f" for {kind.task}" if kind.task else ""


# ------------------------------------------------------------------ cheaper model


_SIZES: Final = frozenset({
    "opus", "sonnet", "haiku", "pro", "flash", "lite", "mini", "nano", "micro", "premier", "large", "medium", "small",
    "tiny", "max", "plus", "latest",
})  # fmt: skip
"""Words of a model's name that tell its size: models whose names have the others in common are of one family."""


def family(model: str) -> tuple[str, ...]:
    """What the names of a model's smaller and larger siblings have in common.

    >>> family("claude-opus-4-5") == family("claude-haiku-4-5"), family("gpt-4.1-mini") == family("gpt-4.1")
    (True, True)
    >>> family("gpt-4.1") == family("gpt-4o")
    False
    """
    return tuple(word for word in model.split("-") if word not in _SIZES)


def cheaper_model(case: Case) -> Iterator[Advice | None]:
    """The same tokens at another model's prices of today."""
    for kind, sums in case.evidence.by_kind.items():
        card = case.card(kind.provider, kind.model, kind.tier)
        usage, prompt = usage_of(sums), sums.input_tokens / sums.calls
        if card is None or card.free:
            continue
        before = _tokens(card, usage, prompt, f"the tokens at today's prices of {_named(kind.provider, kind.model)}")
        if before is None:
            continue
        most = before.result * Decimal(str(1 - case.limits.cheaper))
        found = []
        for provider, model in _candidates(case, kind, card):
            other = case.card(provider, model, kind.tier)
            after = None if other is None else _tokens(other, usage, prompt, f"at those of {_named(provider, model)}")
            if after is not None and after.result < most and (after.result or case.candidates):
                found.append((after.result, provider, model, after))
        if not found:
            continue
        # The user vouches for the candidates; of a family, the next smaller one is the least to ask of the answers.
        _, provider, model, after = (min if case.candidates else max)(found)
        difference = _difference(before, after)
        others = sorted({_named(p, m) for _, p, m, _ in found} - {_named(provider, model)})
        actions = [
            f"Answer a sample of {kind.task or 'these calls'} with {_named(provider, model)} and compare the answers.",
            f"Where they are good enough, ask for {model} instead of {kind.model}.",
        ]
        if others:
            actions.append(f"Cheaper too: {', '.join(others[:4])}.")
        yield case.advise(
            "cheaper_model",
            {**kind._asdict(), "to": _named(provider, model)},
            f"{_named(provider, model)} instead of {kind.model}{_for_task(kind)}",
            sums.calls,
            [before, after, difference, _a_month(case, difference.result)],
            [kind],
            "Its answers are good enough and as long, and its tokens as many: only a trial can tell.",
            "medium",
            actions,
        )


def _candidates(case: Case, kind: Kind, card: RateCard) -> list[tuple[str, str]]:
    if case.candidates:
        named = [tuple(name.split("/", 1)) for name in case.candidates if "/" in name]
        return [(name[0], name[1]) for name in named if name != (kind.provider, kind.model)]
    words = family(card.model)
    return [
        (kind.provider, model)
        for model in case.book.models(card.provider)
        if model != card.model and family(model) == words
    ]


# ------------------------------------------------------------------ prompt caching


_LIVES: Final = {"cache_write_5m": ("5 minutes", 300), "cache_write_1h": ("1 hour", 3600)}


def prompt_caching(case: Case) -> Iterator[Advice | None]:
    """What reading prefixes from a cache would cost, by the gaps between the calls that sent them."""
    for prefix, (count, latest) in case.evidence.prefixes.items():
        by_kind: dict[Kind, list[Call]] = defaultdict(list)
        for call in latest:
            by_kind[call.kind].append(call)
        for kind, read in by_kind.items():
            yield _caching(case, prefix, kind, read, round(count * len(read) / len(latest)))


def _caching(case: Case, prefix: str, kind: Kind, read: Sequence[Call], count: int) -> Advice | None:
    card = case.card(kind.provider, kind.model, kind.tier)
    lengths = [call.prefix_share * call.input_tokens for call in read]
    prompt = mean(call.input_tokens for call in read)
    if card is None or len(read) < 2 or mean(lengths) < case.limits.prefix_tokens:
        return None
    rates = card.rates(math.floor(prompt))
    if "cache_read" not in rates or "input" not in rates:
        return None
    now: dict[str, int] = defaultdict(int)
    for call in read:
        for meter, tokens in call.usage.items():
            if meter == "input" or meter.startswith("cache_"):
                now[meter] += tokens
    before = _tokens(card, now, prompt, f"the prompts of {len(read)} calls as they are")
    best: tuple[Step, str, float] | None = None
    for meter, (life, seconds) in _LIVES.items():
        if meter not in rates:
            continue
        again = [late.started - early.started <= seconds for early, late in pairwise(read)]
        reuse = sum(again) / len(read)
        if reuse <= (case.limits.reuse_1h if seconds == 3600 else case.limits.reuse_5m):
            continue
        kept = sum(length for length, hit in zip(lengths[1:], again, strict=True) if hit)
        written = sum(lengths) - kept
        usage = {"cache_read": kept, meter: written, "input": sum(c.input_tokens for c in read) - kept - written}
        step = _tokens(card, usage, prompt, f"with the prefix kept for {life}: {reuse:.0%} of the calls find it there")
        if step is not None and (best is None or step.result < best[0].result):
            best = step, life, reuse
    if before is None or best is None:
        return None
    after, life, reuse = best
    difference = _difference(before, after)
    all_of_them = Step(
        f"for all {count} calls", f"{_shown(difference.result)} / {len(read)} * {count}",
        _exact(difference.result / len(read) * count), "USD",
    )  # fmt: skip
    written_more = rates.get("cache_write_5m", rates["input"]).numerator > rates["input"].numerator
    how = (
        f"Mark the end of the prefix for the cache, with a lifetime of {life}."
        if written_more
        else "The provider caches by itself: put what stays the same first, to the letter, and what changes after it."
    )
    return case.advise(
        "prompt_caching",
        {**kind._asdict(), "prefix": prefix},
        f"Cache the prefix of {mean(lengths):,.0f} tokens{_for_task(kind)} for {life}",
        count,
        [before, after, difference, all_of_them, _a_month(case, all_of_them.result)],
        [kind],
        f"Calls come as close together as the {len(read)} that were read, and the prefix has as large a share of the "
        "tokens as of the characters.",
        "low",
        [how, "See that nothing in the prefix changes from call to call: no date, no id."],
        read,
    )


# ------------------------------------------------------------------ batch and flex


def batch(case: Case) -> Iterator[Advice | None]:
    """The same tokens in a tier that is slower and cheaper, of calls that can wait."""
    for kind in case.evidence.by_kind:
        if kind.tier not in {"", "default", "standard", "auto"}:
            continue
        read = case.evidence.sampled[kind]
        can_wait = [
            call
            for call in read
            if kind.task in case.unhurried or URGENCY.get(call.priority, URGENCY["normal"]) < case.limits.urgency
        ]
        count = round(len(can_wait) * case.evidence.weight(kind))
        card = case.card(kind.provider, kind.model)
        if card is None or not can_wait or count / case.evidence.days < Decimal(str(case.limits.queued)):
            continue
        usage: dict[str, float] = defaultdict(float)
        for call in can_wait:
            for meter, tokens in call.usage.items():
                usage[meter] += tokens * float(case.evidence.weight(kind))
        prompt = mean(call.input_tokens for call in can_wait)
        before = _tokens(card, usage, prompt, f"{count} calls that can wait, at today's prices")
        if before is None:
            continue
        offers = []
        for tier in ("flex", "batch"):
            other = case.card(kind.provider, kind.model, tier)
            after = None if other is None else _tokens(other, usage, prompt, f"at those of the tier {tier}")
            if other is not None and other.tier == tier and after is not None:
                offers.append((after.result, tier != "flex", tier, after))
        if not offers or min(offers)[0] >= before.result:
            continue
        _, _, tier, after = min(offers)
        difference = _difference(before, after)
        actions = (
            ['Ask for `service_tier="flex"` in these calls, and for a longer time-out: answers are slower.']
            if tier == "flex"
            else ["Hand these calls in as a batch: answers come within a day.", "Fetch the answers when it has ended."]
        )
        why = "the task is named as one nobody waits for" if kind.task in case.unhurried else "their priority says so"
        yield case.advise(
            "batch",
            {**kind._asdict(), "to": tier},
            f"{'Batch' if tier == 'batch' else 'Flex'} for {kind.task or kind.model}, which can wait",
            count,
            [before, after, difference, _a_month(case, difference.result)],
            [kind],
            f"These calls can wait: {why}. Cache reads are as many as now, which a batch does not promise.",
            "low" if tier == "flex" else "medium",
            actions,
            can_wait,
        )


# ------------------------------------------------------------------ response cache


def response_cache(case: Case) -> Iterator[Advice | None]:
    """What repeats cost that came while an answer to the same prompt was at hand."""
    repeats: dict[Kind, list[Call]] = defaultdict(list)
    for calls in case.evidence.repeated:
        by_kind: dict[Kind, list[Call]] = defaultdict(list)
        for call in calls:
            by_kind[call.kind].append(call)
        for kind, same in by_kind.items():
            kept_since: float | None = None
            for call in same:
                if kept_since is not None and call.started - kept_since < case.limits.cached_hours * 3600:
                    repeats[kind].append(call)
                elif not call.wasted:
                    kept_since = call.started
    for kind, again in repeats.items():
        cost = usd(sum(call.cost for call in again))
        each = _exact(cost / len(again))
        total = Step("what the repeats cost", f"{len(again)} * {_shown(each)}", _exact(len(again) * each), "USD")
        yield case.advise(
            "response_cache",
            kind._asdict(),
            f"Keep answers{_for_task(kind)} for {case.limits.cached_hours} h: prompts are repeated",
            len(again),
            [total, _a_month(case, total.result)],
            [kind],
            "The same prompt may have the same answer again. At least: the prompts that are repeated most were read.",
            "medium",
            [
                f"Keep each answer for {case.limits.cached_hours} h under a hash of model and prompt.",
                "Leave out what must differ each time, and what depends on the user or the hour.",
            ],
            again,
        )


# ------------------------------------------------------------------ context


def context(case: Case) -> Iterator[Advice | None]:
    """Prompts far longer than the task's usual ones, and conversations that send all of their past each time."""
    in_conversations = set()
    excess: dict[Kind, Decimal] = defaultdict(Decimal)
    long: dict[Kind, list[Call]] = defaultdict(list)
    turns = case.limits.turns
    for talk in case.evidence.conversations(turns):
        limit = max(call.input_tokens for call in talk[:turns])
        for call in talk[turns:]:
            if call.input_tokens > limit:
                over = Decimal(call.input_tokens - limit) / call.input_tokens
                excess[call.kind] += usd(call.cost_prompt) * over
                long[call.kind].append(call)
                in_conversations.add(call.id)
    for kind, calls in long.items():
        each = _exact(excess[kind] / len(calls))
        total = Step(
            f"what input beyond that of the first {turns} turns cost", f"{len(calls)} * {_shown(each)}",
            _exact(len(calls) * each), "USD",
        )  # fmt: skip
        yield case.advise(
            "context",
            {**kind._asdict(), "what": "conversations"},
            f"Shorten conversations{_for_task(kind)} after {turns} turns",
            len(calls),
            [total, _a_month(case, total.result)],
            [kind],
            f"Later turns need no more of the past than turn {turns} sent. At least: the dearest conversations were "
            "read. A summary of what is left out costs a call now and then.",
            "medium",
            [f"Send the last {turns} turns and a summary of those before.", "Cache what stays in front of them."],
            calls,
        )
    for kind, read in case.evidence.sampled.items():
        if len(read) < case.limits.calls or not kind.task:
            continue
        usual_input, usual_output = (median(values) for values in zip(*[
            (call.input_tokens, call.output_tokens) for call in read
        ], strict=True))  # fmt: skip
        oversized = [
            call
            for call in read
            if usual_input and call.input_tokens > case.limits.oversized * usual_input
            if call.output_tokens <= 2 * usual_output and call.id not in in_conversations
        ]
        if not oversized:
            continue
        weight = case.evidence.weight(kind)
        beyond = (1 - Decimal(str(usual_input)) / call.input_tokens for call in oversized)
        cost = sum((usd(call.cost_prompt) * part for call, part in zip(oversized, beyond, strict=True)), Decimal(0))
        count, each = round(len(oversized) * weight), _exact(cost / len(oversized))
        total = Step(
            f"what input beyond the usual {usual_input:,.0f} tokens cost", f"{count} * {_shown(each)}",
            _exact(count * each), "USD",
        )  # fmt: skip
        yield case.advise(
            "context",
            {**kind._asdict(), "what": "prompts"},
            f"Trim prompts{_for_task(kind)} that are {case.limits.oversized:g} times as long as usual",
            count,
            [total, _a_month(case, total.result)],
            [kind],
            "These calls get by with the input of the others: their answers are no longer than usual.",
            "medium",
            ["Look at what the examples send that the others do not.", "Retrieve fewer or shorter passages."],
            oversized,
        )


# ------------------------------------------------------------------ waste


def waste(case: Case) -> Iterator[Advice | None]:
    """What failed calls and broken-off streams cost."""
    for kind, read in case.evidence.sampled.items():
        lost = [call for call in read if call.wasted and call.cost]
        all_of_it = sum(call.cost for call in read)
        if not lost or sum(call.cost for call in lost) < case.limits.wasted * all_of_it:
            continue
        count = round(len(lost) * case.evidence.weight(kind))
        each = _exact(usd(sum(call.cost for call in lost)) / len(lost))
        total = Step("what was paid for nothing", f"{count} * {_shown(each)}", _exact(count * each), "USD")
        reasons: dict[str, int] = defaultdict(int)
        for call in lost:
            reasons[call.wasted] += 1
        most = sorted(reasons, key=lambda name: (-reasons[name], name))
        actions = [f"Most frequent: {', '.join(most[:3])}."]
        if any(call.wasted != "aborted" for call in lost):
            actions.append("Retry with a pause that grows, and not what cannot succeed.")
        if "aborted" in reasons:
            actions.append("Ask for shorter answers where streams are left early, and end the request with the reader.")
        yield case.advise(
            "waste",
            kind._asdict(),
            f"Failed and broken-off calls{_for_task(kind)} cost {_share(lost, all_of_it)} of {kind.model}",
            count,
            [total, _a_month(case, total.result)],
            [kind],
            "None of these answers was of use. At most: some would have had to be paid all the same.",
            "medium",
            actions,
            lost,
        )


def _share(calls: Sequence[Call], of: int) -> str:
    return f"{sum(call.cost for call in calls) / of:.0%}".replace("%", " %")


# ------------------------------------------------------------------ provider


def same_model(model: str) -> str:
    """A model's name without what providers add to it: two that agree in it are one model.

    >>> same_model("anthropic/claude-sonnet-4.5") == same_model("claude-sonnet-4-5-20250929")
    True
    """
    name = model.lower().rpartition("/")[2]
    name = re.sub(r"^(?:us|eu|apac|global)?\.?(?:anthropic|meta|amazon|mistral|cohere|deepseek)\.", "", name)
    return re.sub(r"[._@]", "-", re.sub(r"[-@]\d{8}(?=$|-v)|-v\d+(?::\d+)?$", "", name))


def provider(case: Case) -> Iterator[Advice | None]:
    """The same model from another provider, among those in use and those that the user names."""
    used = {case.book.canonical(kind.provider) for kind in case.evidence.by_kind}
    others = {case.book.canonical(name) for name in case.providers if case.book.knows(name)} | used
    shelves: dict[str, dict[str, list[str]]] = {}
    for name in others if len(others) > 1 else ():
        shelf: dict[str, list[str]] = defaultdict(list)
        for model in case.book.models(name):
            if ":" not in same_model(model):
                shelf[same_model(model)].append(model)
        shelves[name] = shelf
    for kind, sums in case.evidence.by_kind.items():
        card = case.card(kind.provider, kind.model, kind.tier)
        if card is None or card.free:
            continue
        usage, prompt = usage_of(sums), sums.input_tokens / sums.calls
        before = _tokens(card, usage, prompt, f"the tokens at today's prices of {kind.provider}")
        if before is None:
            continue
        found = []
        for name, shelf in shelves.items():
            for model in shelf.get(same_model(card.model), []) if name != card.provider else []:
                other = case.card(name, model, kind.tier)
                after = None if other is None else _tokens(other, usage, prompt, f"at those of {name}")
                if after is not None and 0 < after.result < before.result * Decimal(str(1 - case.limits.cheaper)):
                    found.append((after.result, name, model, after))
        if not found:
            continue
        _, name, model, after = min(found)
        difference = _difference(before, after)
        yield case.advise(
            "provider",
            {**kind._asdict(), "to": _named(name, model)},
            f"{kind.model} from {name} instead of {kind.provider}{_for_task(kind)}",
            sums.calls,
            [before, after, difference, _a_month(case, difference.result)],
            [kind],
            "It is the same model in the same precision, and its terms and place of processing are as good.",
            "medium",
            [f"Compare limits, latency and terms of {name}.", f"Send these calls there as {model}."],
        )


# ------------------------------------------------------------------ notices


def peak_hours(case: Case) -> Iterator[Advice | None]:
    """The quarter of the day that holds most of the cost; with savings where prices depend on the hour."""
    by_hour = [0] * 24
    for costs in case.evidence.by_hour.values():
        for hour, cost in costs.items():
            by_hour[hour % 24] += cost
    total = sum(by_hour)
    windows = [(sum(by_hour[(start + n) % 24] for n in range(6)), -start) for start in range(24)]
    most, start = max(windows)
    if total and case.evidence.total.calls >= case.limits.calls and most > case.limits.peak * total:
        held, whole = _exact(usd(most)), _exact(usd(total))
        share = Step("their share", f"{_shown(held)} / {_shown(whole)}", _exact(held / whole), "1")
        title = f"{share.result:.0%}".replace("%", " %")
        actions = [
            "Rate limits are met in these hours first: move there what can wait to others.",
            "A budget per hour keeps a peak from using up the day.",
        ]
        yield case.notice(
            "peak_hours", f"{title} of the cost is in six hours, {-start:02}:00 to {(6 - start) % 24:02}:00 UTC",
            case.evidence.total.calls, [share], actions,
        )  # fmt: skip
    for kind, costs in case.evidence.by_hour.items():
        yield _off_peak(case, kind, costs)


def _off_peak(case: Case, kind: Kind, costs: Mapping[int, int]) -> Advice | None:
    """What calls would cost in the cheapest hour, of a model whose price depends on it."""
    sums = case.evidence.by_kind.get(kind)
    if sums is None or not costs:
        return None
    usage, prompt = usage_of(sums), sums.input_tokens / sums.calls
    now = case.at_ns // 10**9 // HOUR
    offers = []
    for hour in range(24):
        card = case.book.card(kind.provider, kind.model, (now + hour) * HOUR * 10**9, kind.tier or None)
        cost = None if card is None else priced(card, usage, prompt)
        if cost is None:
            return None
        offers.append((cost, (now + hour) % 24))
    if min(offers)[0] == max(offers)[0]:
        return None
    price_at = {hour: cost for cost, hour in offers}
    spent = sum(costs.values())
    before = _exact(sum((price_at[hour % 24] * cost / spent for hour, cost in costs.items()), Decimal(0)))
    cheapest, at = min(offers)
    after = Step(f"all of them at the prices of {at:02}:00 UTC", _shown(_exact(cheapest)), _exact(cheapest), "USD")
    first = Step("the tokens at the prices of the hours they came in", _shown(before), before, "USD")
    difference = _difference(first, after)
    return case.advise(
        "peak_hours",
        kind._asdict(),
        f"Call {kind.model}{_for_task(kind)} when it is cheaper",
        sums.calls,
        [first, after, difference, _a_month(case, difference.result)],
        [kind],
        "All of these calls can wait for the cheap hours. At most: those that cannot save nothing.",
        "medium",
        [f"Put off to {at:02}:00 UTC what nobody waits for."],
    )


def cost_per_user(case: Case) -> Iterator[Advice | None]:
    """What an active user costs a day, where that is more than the limit."""
    users, days, cost = case.evidence.users()
    if not days:
        return
    each = Step("USD for a user and day", f"{_shown(cost)} / {days}", _exact(cost / days), "USD")
    if each.result > case.limits.per_user and case.evidence.total.calls >= case.limits.calls:
        yield case.notice(
            "cost_per_user",
            f"A user costs ${each.result:.2f} a day on which it is active ({users} users)",
            case.evidence.total.calls,
            [each],
            ["Look at the dearest users: is it use, or a loop?", "A budget per user stops the one that runs away."],
        )


RULES: Final[tuple[Callable[[Case], Iterator[Advice | None]], ...]] = (
    cheaper_model, prompt_caching, batch, response_cache, context, waste, provider, peak_hours, cost_per_user,
)  # fmt: skip
