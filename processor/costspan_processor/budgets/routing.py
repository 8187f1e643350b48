"""Which model a call gets when money runs low: paths from dear to cheap, and a matrix of tasks' needs.

All of it is decided by what is given: there is no clock here, no file and no store.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from costspan_pricing.words import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from costspan_pricing import PriceBook, RateCard

QUALITIES: Final = ("basic", "standard", "high", "best")
"""How good an answer has to be, the least first."""
SENSITIVITIES: Final = ("low", "medium", "high")
"""How much a task minds what it costs, the least first."""
_COMPLEXITY: Final = {"low": -1, "medium": 0, "high": 1}
"""Steps of quality."""
_URGENCY: Final = {"low": 1, "normal": 0, "high": -1}
"""Steps of sensitivity."""


class ConfigurationError(ValueError):
    """What is wrong in a configuration: `problems`, each a line that names the file and the place in it."""

    def __init__(self, problems: Collection[str]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class Target(NamedTuple):
    """A model of a provider, both as written: the client of that provider gets this name."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


class Step(NamedTuple):
    """A model of a path, which is used while more than `above` (share of the limit, 0 to 1) remains."""

    above: Decimal
    target: Target


class Task(NamedTuple):
    """What a kind of work needs: one of `QUALITIES`, one of `SENSITIVITIES`, and the path that it goes down."""

    quality: str
    sensitivity: str
    path: str | None
    """None: the path that its model is on."""


class Emergency(NamedTuple):
    """The end of the money: `models` are used below a share of the soft limit (0 to 1), or below an amount of USD."""

    models: tuple[Target, ...]
    """The preferred one first."""
    remaining_share: Decimal = Decimal("0.05")
    remaining_usd: Decimal = Decimal(5)


class Route(NamedTuple):
    """The model that a call shall go to, as written in the configuration, and why."""

    provider: str
    model: str
    reason: str


@dataclass(frozen=True)
class Routing:
    """Which model a call gets: `read` it from a configuration, then `check` it by the price book."""

    paths: Mapping[str, tuple[Step, ...]] = field(default_factory=dict)
    """By name: the dearest model first. The last step is used below its share too."""
    emergency: Emergency | None = None
    tasks: Mapping[str, Task] = field(default_factory=dict)
    matrix: Mapping[str, Mapping[str, Target]] = field(default_factory=dict)
    """By quality and sensitivity; empty where there are no tasks."""
    where: str = ""
    """The file that it was read from."""
    _book: PriceBook | None = field(default=None, repr=False, compare=False)
    _cards: Mapping[Target, RateCard | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, mapping: Mapping[str, Any], where: str) -> Routing:
        """The table `routing` of the configuration `where`. Raises ConfigurationError with everything that is wrong."""
        reading = _Reading(where)
        routing = reading.routing(mapping)
        if reading.problems:
            raise ConfigurationError(reading.problems)
        return routing

    def check(self, book: PriceBook, at: float) -> Routing:
        """The same, knowing all the names that models go by in the book.

        Every model must have a price at `at` (unix seconds), and none may cost more than the one before it on a path,
        per token of input and per token of output. Raises ConfigurationError with everything that is wrong.
        """
        problems = []
        cards = {}
        for place, target in self._targets():
            cards[target] = card = book.card(target.provider, target.model, int(at * 10**9))
            if card is None:
                problems.append(f"{self.where}: {place}: {_unknown(book, target)}")
        for name, steps in self.paths.items():
            for position, (dearer, cheaper) in enumerate(pairwise(steps), 1):
                before, after = cards[dearer.target], cards[cheaper.target]
                why = None if before is None or after is None else _dearer(before, after)
                if why:
                    place = f"routing.paths.{name}[{position}].model"
                    what = f"{cheaper.target} must cost no more than {dearer.target} before it: {why}"
                    problems.append(f"{self.where}: {place}: {what}")
        if problems:
            raise ConfigurationError(problems)
        return replace(self, _book=book, _cards=cards)

    def in_emergency(self, soft_limit: Decimal, spent: Decimal) -> bool:
        """Whether so little is left of a soft limit (both USD) that the emergency's models are used.

        An amount that the whole limit does not come to says nothing: such a budget would begin in an emergency.
        """
        last = self.emergency
        if last is None:
            return False
        remaining = soft_limit - spent
        return remaining < soft_limit * last.remaining_share or remaining < last.remaining_usd <= soft_limit

    def cheaper(
        self, provider: str, model: str, remaining: Decimal | int, emergency: bool = False
    ) -> tuple[str, str] | None:
        """A model for a call that a client is about to make, and why; None: it stays with the one that it asks for.

        It is of the same provider, and further down the path that the asked model is on. `remaining` is the share of
        the limit that is left. Names are taken as spans have them, once the routing is checked.
        """
        found = self._on_path(provider, model)
        if found is None:
            return None
        path, position = found
        step = self._down(path, position, remaining, emergency, self._provider(provider))
        return None if step is None else (step[0].model, step[1])

    def route(
        self,
        task: str,
        complexity: str | None = None,
        quality: str | None = None,
        urgency: str | None = None,
        model: str | None = None,
        remaining: Decimal | int = 1,
        emergency: bool = False,
    ) -> Route:
        """The model for a call that is still to be made, of whichever provider.

        The matrix has it, by the quality and the sensitivity of the task: `complexity` (low, medium, high) moves the
        quality by a step, `urgency` (low, normal, high) the sensitivity the other way, `quality` takes the place of the
        task's. A `model` ("provider/model") that is asked for is taken as it is. Either goes down its path as the share
        of the limit that is left, `remaining`, gets smaller. Raises ValueError, saying what is known, for a name that
        is not.
        """
        known = self.tasks[_one_of("task", task, self.tasks)]
        wanted = QUALITIES.index(_one_of("quality", known.quality if quality is None else quality, QUALITIES))
        moved = wanted + _COMPLEXITY[_one_of("complexity", complexity or "medium", _COMPLEXITY)]
        minded = SENSITIVITIES.index(known.sensitivity) + _URGENCY[_one_of("urgency", urgency or "normal", _URGENCY)]
        if model is not None:
            target = _target(model)
            if target is None:
                raise ValueError(f"model must be {_A_TARGET}, not {model!r}")
            reason = "asked for"
        else:
            row, column = _within(QUALITIES, moved), _within(SENSITIVITIES, minded)
            target = self.matrix[row][column]
            reason = f"{task}: quality {row}, sensitivity {column}"
        if model is not None or known.path is None:
            found = self._on_path(*target, known.path)
        else:
            places = self._places.get(self._identity(*target), ())
            found = next((place for place in places if place[0] == known.path), (known.path, -1))
        step = None if found is None else self._down(*found, remaining, emergency, over=target)
        if step is not None:
            target, reason = step
        if emergency and model is None and self.emergency is not None:
            last = next((last for last in self.emergency.models if self._is_no_dearer(last, target)), target)
            if last != target:
                target, reason = last, "emergency"
        return Route(*target, reason)

    def _down(
        self,
        path: str,
        position: int,
        remaining: Decimal | int,
        emergency: bool,
        provider: str | None = None,
        over: Target | None = None,
    ) -> tuple[Target, str] | None:
        """The model further down a path for what remains, and why; None: no other.

        It is of one provider, if that is given. Position -1 is a model that is not on the path: `over`.
        """
        steps = self.paths[path]
        present = next((number for number, step in enumerate(steps) if remaining > step.above), len(steps) - 1)
        # Such a model keeps its place while the first step would hold.
        if position < 0 and present == 0 and not emergency:
            return None
        below = [
            target
            for _, target in steps[position + 1 : None if emergency else present + 1]
            if provider is None or self._provider(target.provider) == provider
            if position >= 0 or over is None or self._is_no_dearer(target, over)
        ]
        if not below:
            return None
        if emergency:
            preferred = () if self.emergency is None else self.emergency.models
            return next((target for target in preferred if target in below), below[-1]), f"emergency, path {path}"
        return below[-1], f"{_percent(remaining)} % of the budget left, path {path}"

    def _is_no_dearer(self, target: Target, than: Target) -> bool:
        """As far as is known: the models of a configuration have prices once it is checked."""
        before, after = self._cards.get(than), self._cards.get(target)
        return before is None or after is None or _dearer(before, after) is None

    def _on_path(self, provider: str, model: str, first: str | None = None) -> tuple[str, int] | None:
        """The path that a model is on, and where; `first` is the one to prefer."""
        places = self._places.get(self._identity(provider, model), ())
        return next((place for place in places if place[0] == first), places[0] if places else None)

    @cached_property
    def _places(self) -> Mapping[tuple[str, str], list[tuple[str, int]]]:
        """The paths that each model is on, and where, in the order of the file."""
        places: dict[tuple[str, str], list[tuple[str, int]]] = {}
        for name, steps in self.paths.items():
            for position, step in enumerate(steps):
                places.setdefault(self._identity(*step.target), []).append((name, position))
        return places

    def _identity(self, provider: str, model: str) -> tuple[str, str]:
        """What two names of one model have in common."""
        match = None if self._book is None else self._book.match(provider, model)
        # A price for whatever is not listed makes no two models the same.
        same = match is not None and match.rule != "fallback"
        return self._provider(provider), match.model if match is not None and same else model.lower()

    def _provider(self, name: str) -> str:
        return name.lower() if self._book is None else self._book.canonical(name)

    def _targets(self) -> Iterator[tuple[str, Target]]:
        """Every model, with its place."""
        for name, steps in self.paths.items():
            for position, step in enumerate(steps):
                yield f"routing.paths.{name}[{position}].model", step.target
        for position, target in enumerate(() if self.emergency is None else self.emergency.models):
            yield f"routing.emergency.models[{position}]", target
        for quality, row in self.matrix.items():
            for sensitivity, target in row.items():
                yield f"routing.matrix.{quality}.{sensitivity}", target


# ---------------------------------------------------------------------- by the book


def _unknown(book: PriceBook, target: Target) -> str:
    if not book.knows(target.provider):
        return f"the price book has no provider {target.provider!r}{did_you_mean(target.provider, book.providers)}"
    if book.match(*target) is not None:
        return f"the price book has no price at present for {str(target)!r}"
    return f"the price book has no model {str(target)!r}{did_you_mean(target.model, book.models(target.provider))}"


def _dearer(before: RateCard, after: RateCard) -> str | None:
    """How the second card costs more than the first, or cannot be compared with it; None if it does not."""
    for meter in ("input", "output"):
        most, least = before.rate(meter), after.rate(meter)
        if most is None or least is None:
            return f"there is no price per {meter} token to compare"
        if least > most:
            return f"USD {least:f} against {most:f} a million {meter} tokens"
    return None


# ---------------------------------------------------------------------- words


_A_TARGET: Final = "'provider/model', such as 'openai/gpt-4.1'"


def shown(value: object) -> str:
    """A value as an error quotes it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    text = str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _one_of(what: str, word: object, known: Collection[str]) -> str:
    if isinstance(word, str) and word in known:
        return word
    raise ValueError(f"{what} must be one of {', '.join(known) or 'none: the configuration has none'}, not {word!r}")


def _target(text: object) -> Target | None:
    if not isinstance(text, str):
        return None
    provider, _, model = text.partition("/")
    return Target(provider, model) if provider.strip() and model.strip() else None


def _within(words: tuple[str, ...], position: int) -> str:
    return words[min(max(position, 0), len(words) - 1)]


def _percent(share: Decimal | int) -> str:
    return f"{(100 * Decimal(share)).quantize(Decimal('0.1')).normalize():f}"


# ---------------------------------------------------------------------- from a configuration


class _Reading:
    """Reads the table `routing`, and goes on after what is wrong, so that all of it is told at once."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.problems: list[str] = []

    def wrong(self, place: str, what: str) -> None:
        self.problems.append(f"{self.where}: {place}: {what}")

    def routing(self, mapping: object) -> Routing:
        table = self.table(mapping, "routing", ("paths", "emergency", "tasks", "matrix"))
        paths = {
            name: self.path(steps, f"routing.paths.{name}")
            for name, steps in self.table(table.get("paths", {}), "routing.paths").items()
        }
        tasks = {
            name: self.task(task, f"routing.tasks.{name}", paths)
            for name, task in self.table(table.get("tasks", {}), "routing.tasks").items()
        }
        matrix = {}
        if tasks or "matrix" in table:
            rows = self.whole(table.get("matrix", {}), "routing.matrix", QUALITIES)
            for quality in (word for word in QUALITIES if word in rows):
                cells = self.whole(rows[quality], f"routing.matrix.{quality}", SENSITIVITIES)
                targets = {
                    sensitivity: self.target(cells[sensitivity], f"routing.matrix.{quality}.{sensitivity}")
                    for sensitivity in SENSITIVITIES
                    if sensitivity in cells
                }
                matrix[quality] = MappingProxyType({word: cell for word, cell in targets.items() if cell is not None})
        emergency = self.emergency(table["emergency"]) if "emergency" in table else None
        return Routing(
            MappingProxyType(paths), emergency, MappingProxyType(tasks), MappingProxyType(matrix), self.where
        )

    def path(self, value: object, place: str) -> tuple[Step, ...]:
        if not isinstance(value, list) or not value:
            self.wrong(place, f"must be a list of steps, each with 'above' and 'model', not {shown(value)}")
            return ()
        steps: list[Step] = []
        for position, entry in enumerate(value):
            at = f"{place}[{position}]"
            known = self.whole(entry, at, ("above", "model"))
            if "above" not in known or "model" not in known:
                continue
            share, target = self.share(known["above"], f"{at}.above"), self.target(known["model"], f"{at}.model")
            if share is not None and steps and share >= steps[-1].above:
                self.wrong(f"{at}.above", f"must be less than that of the step before, not {share}")
            if target is not None and target in (before.target for before in steps):
                self.wrong(f"{at}.model", f"{target} is on this path already")
            if share is not None and target is not None:
                steps.append(Step(share, target))
        return tuple(steps)

    def task(self, value: object, place: str, paths: Mapping[str, object]) -> Task:
        table = self.table(value, place, Task._fields)
        quality, sensitivity = (
            self.word(table, place, name, known)
            for name, known in (("quality", QUALITIES), ("sensitivity", SENSITIVITIES))
        )
        path = self.word(table, place, "path", tuple(paths)) if "path" in table else None
        return Task(quality, sensitivity, path)

    def emergency(self, value: object) -> Emergency:
        place = "routing.emergency"
        table = self.table(value, place, Emergency._fields)
        models = table.get("models")
        if not isinstance(models, list) or not models:
            self.wrong(f"{place}.models", f"must be a list of {_A_TARGET}, not {shown(models)}")
            models = []
        targets = [self.target(model, f"{place}.models[{position}]") for position, model in enumerate(models)]
        emergency = Emergency(tuple(target for target in targets if target is not None))
        if "remaining_share" in table:
            share = self.share(table["remaining_share"], f"{place}.remaining_share")
            emergency = emergency._replace(remaining_share=share or Decimal(0))
        if "remaining_usd" in table:
            amount = _number(table["remaining_usd"])
            if amount is None or amount < 0:
                at = f"{place}.remaining_usd"
                self.wrong(at, f"must be an amount in USD, 0 or more, not {shown(table['remaining_usd'])}")
            emergency = emergency._replace(remaining_usd=amount or Decimal(0))
        return emergency

    def table(self, value: object, place: str, known: tuple[str, ...] | None = None) -> Mapping[str, Any]:
        """A table with no other keys than the known ones."""
        if not isinstance(value, dict):
            self.wrong(place, f"must be a table, not {shown(value)}")
            return {}
        for key in value if known is not None else ():
            if key not in (known or ()):
                self.wrong(place, f"unknown key {key!r}{did_you_mean(key, known or (), otherwise=True)}")
        return value

    def whole(self, value: object, place: str, known: tuple[str, ...]) -> Mapping[str, Any]:
        """A table with all of the known keys."""
        table = self.table(value, place, known)
        missing = [key for key in known if key not in table]
        if missing and isinstance(value, dict):
            self.wrong(place, f"lacks {', '.join(missing)}")
        return table

    def word(self, table: Mapping[str, Any], place: str, name: str, known: tuple[str, ...]) -> str:
        if table.get(name) in known:
            return str(table[name])
        value = table.get(name)
        meant = did_you_mean(value, known)
        choice = f"must be one of {', '.join(known) or 'none: there are none'}, not {shown(value)}{meant}"
        self.wrong(f"{place}.{name}", choice)
        return ""

    def target(self, value: object, place: str) -> Target | None:
        target = _target(value)
        if target is None:
            self.wrong(place, f"must be {_A_TARGET}, not {shown(value)}")
        return target

    def share(self, value: object, place: str) -> Decimal | None:
        share = _number(value)
        if share is None or not 0 <= share <= 1:
            self.wrong(place, f"must be a share from 0 to 1, not {shown(value)}")
            return None
        return share


def _number(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    # The digits that were written, not the nearest binary fraction.
    number = Decimal(str(value))
    return number if number.is_finite() else None
