"""What is wrong with a price file, and where: every problem with its provider, model, period and field.

>>> for problem in check({"schema_version": 1, "provider": "acme", "models": {"a-1": {"periods": [
...     {"from": "2026-01-01", "rates": {"inptu": "2", "output": 8.5}}]}}}, "prices.json"):
...     print(problem)
prices.json: acme/a-1, period from 2026-01-01, rates.inptu: unknown meter; did you mean "input"?
prices.json: acme/a-1, period from 2026-01-01, rates.output: is the number 8.5; a price is a string: "8.5"

The same form is published as a JSON Schema, `data/schema/prices-v1.schema.json`: what that refuses is refused here.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from costspan_pricing.meters import METERS
from costspan_pricing.timeline import ALWAYS, BookError, days_of, nanoseconds
from costspan_pricing.words import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import tzinfo

LARGEST: Final = 20_000_000
"""Bytes that a price file may have. The book with all its history has a tenth of that."""

SCHEMA: Final = Path(__file__).parent / "data" / "schema" / "prices-v1.schema.json"
"""The JSON Schema of price files, for editors."""

VERSION: Final = 1
"""The version of the form of price files that is read."""

MOST: Final = 1000
"""Problems after which a file is not read on: it is another kind of file."""

_SHOWN: Final = 3
"""Problems that an error spells out; the command line shows all."""

_LEAST: Final = '{"schema_version": 1, "providers": {"openai": {"models": {}}}}'

_DECIMAL: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,30})?")
_DAY: Final = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])")
_INSTANT: Final = re.compile(
    _DAY.pattern + r"(?:[T ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
    r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]))?"
)
_CLOCK: Final = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]|24:00")
_WEEKDAY: Final = "(?:mon|tue|wed|thu|fri|sat|sun)"
_DAYS: Final = re.compile(f"{_WEEKDAY}(?:-{_WEEKDAY})?(?:, ?{_WEEKDAY}(?:-{_WEEKDAY})?)*")
_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]*")
_TIER: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_BOOK_VERSION: Final = re.compile(r"[0-9]{4}\.(?:0[1-9]|1[0-2])\.(?:0[1-9]|[12][0-9]|3[01])(?:\.[0-9]{2})?")
_URL: Final = re.compile(r"https://[^\s/]+\S*")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")

_WEEK: Final = 7 * 24 * 60
"""Minutes."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Problem(NamedTuple):
    """One thing that is wrong. ``provider``, ``model`` and ``period`` are empty where it does not lie in one."""

    file: str
    provider: str
    model: str
    period: str
    """The period's ``from`` as it is written, or "the beginning"."""
    field: str
    """The path of the field in the innermost of the above: ``rates.input``, ``windows[0].tz``; empty for all of it."""
    message: str
    """What is wrong, and what to do if it is not obvious."""

    @property
    def place(self) -> str:
        """Everything but the file: ``openai/gpt-4.1, period from 2025-04-14, rates.input``."""
        name = f"{self.provider}/{self.model}" if self.model else self.provider
        period = f"period from {self.period}" if self.period else ""
        return ", ".join(part for part in (name, period, self.field) if part)

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.place, self.message) if part)


def load(path: Path | str) -> dict[str, Any]:
    """The book in a price file, fit for use; a file of one provider is a book of that one.

    Raises `BookError` that names the file, its first problems with their place, and what to do; for a file that cannot
    be read, is too large, or is no JSON as well.
    """
    return parse(contents(path), str(path), f"; `costspan prices check {path}` says all")


def parse(data: bytes, where: str, advice: str = "") -> dict[str, Any]:
    """The same for what a price file holds. ``where`` is what messages call it, ``advice`` stands at their end."""
    document: dict[str, Any] = decoded(data, where)
    if problems := check(document, where):
        count, first = len(problems), problems[:_SHOWN]
        listed = "; ".join(
            f"{problem.place}: {problem.message}" if problem.place else problem.message for problem in first
        )
        rest = f"; and {count - _SHOWN} more" if count > _SHOWN else ""
        raise BookError(f"{where} is refused: {listed}{rest}{advice}")
    if "providers" in document:
        return document
    return {"schema_version": VERSION, "providers": {document["provider"]: document}}


def contents(path: Path | str) -> bytes:
    """The bytes of a price file. Raises `BookError` if it cannot be read, or has more than `LARGEST`."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BookError(f"{path} cannot be read: {why}. Name a file of prices in JSON") from None
    if len(data) > LARGEST:
        raise BookError(_too_large(str(path)))
    return data


def decoded(data: bytes, where: str) -> Any:
    """The JSON in the bytes, whatever it says; a key that stands twice in an object is remembered for `check`.

    Raises `BookError` for what is no JSON in UTF-8, with line and column, and for what is too large or nested too deep.
    """
    if len(data) > LARGEST:
        raise BookError(_too_large(where))
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        raise BookError(f"{where} is text in UTF-16: save it as UTF-8")
    if data.startswith((b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd")):
        raise BookError(f"{where} is compressed: unpack it first")
    if b"\0" in data:
        raise BookError(f"{where} is binary: a file of prices is JSON in UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BookError(
            f"{where}, line {line}: not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from None
    start = text.lstrip()[:1]
    if not start:
        raise BookError(f"{where} is empty; the least is {_LEAST}")
    if start == "<":
        raise BookError(f"{where} is a web page or XML: a file of prices is JSON. Is it the address of the raw file?")
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise BookError(f"{where}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}") from None
    except RecursionError:
        raise BookError(
            f"{where} is nested too deep: no file of prices has hundreds of objects in each other"
        ) from None
    except ValueError as error:  # an integer of thousands of digits
        raise BookError(f"{where}: not JSON that can be read: {error}") from None


def check(document: object, where: str) -> list[Problem]:
    """All that is wrong with a price file, in the order of the file (`MOST` at most); nothing, if it can be used.

    ``document`` is its JSON, ``where`` the name by which the problems call it. Never raises.
    """
    checker = _Checker(where)
    with suppress(_EnoughError):
        checker.document(document)
    return checker.problems


class _EnoughError(Exception):
    """So many problems have been found that nobody reads more."""


class _Repeated(dict[str, Any]):
    """An object in which keys stood more than once; JSON readers take the last of each."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    return made if len(made) == len(pairs) else _Repeated(pairs)


def _too_large(where: str) -> str:
    return f"{where} has more than {LARGEST // 10**6} MB, which no file of prices needs: name another"


class _Checker:
    """Walks through a document, keeping in mind where it is."""

    def __init__(self, file: str) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._provider = ""
        self._model = ""
        self._period = ""
        self._layer = ""
        """The layer that the file says it is of. If it says one, its prices name their source."""
        self._fallback_of_file: Mapping[str, str] = {}
        self._exchanged_from = ALWAYS[0]
        """Since when there is a rate of exchange, in unix nanoseconds."""
        self._extends = False
        """Whether what is read changes only what it names in something else, and so need not be complete."""

    def say(self, field: str, message: str) -> None:
        provider, model, period, field = map(_printable, (self._provider, self._model, self._period, field))
        self.problems.append(Problem(self._file, provider, model, period, field, message))
        if len(self.problems) >= MOST:
            raise _EnoughError

    # -------------------------------------------------------------- files

    def document(self, document: object) -> None:
        if not isinstance(document, dict):
            self.say("", f"is {_kind(document)}, not an object; the least is {_LEAST}")
            return
        version = document.get("schema_version")
        if isinstance(version, int) and not isinstance(version, bool) and version > VERSION:
            self.say("schema_version", f"is {version}, and this costspan reads {VERSION}: upgrade costspan")
            return
        if "providers" in document:
            self._exchanged_from = _first_exchange(document.get("currency"))
            self._fields(document, "", _BOOK, ("schema_version", "providers"))
        elif "provider" in document or "models" in document:
            self._file_of_provider(document, "", ("schema_version", "provider"))
        else:
            self.say("", f"has neither providers nor a provider; the least is {_LEAST}")
            self._fields(document, "", _BOOK, ())

    def _book_version(self, value: object, field: str) -> None:
        self._match(value, field, _BOOK_VERSION, "a version is a date such as 2026.11.28")

    def _providers(self, value: object, field: str) -> None:
        if not self._filled(value, field):
            return
        claimed: dict[str, str] = {}
        for name, files in self._items(value, field):
            self._provider = name
            if folded := name.strip().lower():
                self._claim(claimed, folded, name, "", "provider")
            self._provider_name(name, "")
            if isinstance(files, list):
                if not files:
                    self.say("", "is an empty list: leave the provider out")
                for number, file in enumerate(files):
                    self._file_of_provider(file, f"[{number}]", ())
                listed = [alias for file in files if isinstance(file, dict) for alias in _texts(file.get("aliases"))]
            else:
                self._file_of_provider(files, "", ())
                listed = _texts(files.get("aliases")) if isinstance(files, dict) else []
            self._provider = name
            for alias in dict.fromkeys(alias.strip().lower() for alias in listed):
                self._claim(claimed, alias, name, "aliases", "provider")
            self._provider = ""

    def _file_of_provider(self, value: object, field: str, required: Sequence[str]) -> None:
        if not isinstance(value, dict):
            self.say(field, f"is {_kind(value)}, not an object of models and prices")
            return
        named = value.get("provider")
        if isinstance(named, str):
            if self._provider and named.strip().lower() != self._provider.strip().lower():
                self.say(_join(field, "provider"), f"is {_shown(named)}, but stands under {_shown(self._provider)}")
            self._provider = self._provider or named
        self._layer = layer if isinstance(layer := value.get("layer"), str) else ""
        self._fallback_of_file = _chain(value.get("fallback"))
        self._fields(value, field, _FILE, required)
        if value.get("free"):
            self._sourced(value, field)
        self._layer = ""

    def _layer_name(self, value: object, field: str) -> None:
        if value not in ("bundled", "overlay"):
            self.say(field, f'is {_shown(value)}; it is "bundled" or "overlay", and absent in a file of your own')

    def _origin(self, value: object, field: str) -> None:
        for key, text in self._items(value, field):
            self._text(text, _join(field, key))

    def _prefixes(self, value: object, field: str) -> None:
        for key, replacements in self._items(value, field):
            self._key(key, field)
            if self._list(replacements, _join(field, key), least=1):
                for number, text in enumerate(replacements):
                    self._any_text(text, f"{_join(field, key)}[{number}]")

    def _suffixes(self, value: object, field: str) -> None:
        for key, text in self._items(value, field):
            self._key(key, field)
            self._any_text(text, _join(field, key))

    def _free(self, value: object, field: str) -> None:
        if not isinstance(value, list):
            self._bool(value, field)
            return
        self._distinct(value, field)
        for number, ending in enumerate(self._list(value, field, least=1)):
            self._text(ending, f"{field}[{number}]")

    def _routes(self, value: object, field: str) -> None:
        if value is True:
            return
        for key, provider in self._items(value, field):
            if not re.fullmatch(r"[^/]+/", key):
                self.say(_join(field, key), "is what stands before a model's name, with its slash: openai/")
            self._provider_name(provider, _join(field, key))

    def _inherits(self, value: object, field: str) -> None:
        self._distinct(value, field)
        for number, name in enumerate(self._list(value, field)):
            self._provider_name(name, f"{field}[{number}]")

    def _multipliers(self, value: object, field: str) -> None:
        for number, multiplier in enumerate(self._list(value, field)):
            place = f"{field}[{number}]"
            fields = self._fields(multiplier, place, _MULTIPLIER, ("id", "factor", "scope"))
            self._order(fields, place)
            self._sourced(fields, place)

    def _geo(self, value: object, field: str) -> None:
        self._distinct(value, field)
        for number, word in enumerate(self._list(value, field, least=1)):
            self._any_text(word, f"{field}[{number}]")

    def _scope(self, value: object, field: str) -> None:
        if value not in ("tokens", "all"):
            self.say(field, f'is {_shown(value)}; it is "tokens", or "all" if fees are multiplied too')

    def _models_meant(self, value: object, field: str) -> None:
        self._distinct(value, field)
        for number, name in enumerate(self._list(value, field, least=1)):
            place = f"{field}[{number}]"
            if self._text(name, place):
                if name == "*":
                    self.say(place, "means all models: leave `models` out")
                else:
                    self._name(name.removesuffix("*"), place)

    def _fees(self, value: object, field: str) -> None:
        for number, fee in enumerate(self._list(value, field)):
            self._sourced(self._fields(fee, f"{field}[{number}]", _FEE, ("rates",)), f"{field}[{number}]")

    def _currency(self, value: object, field: str) -> None:
        self._fields(value, field, _CURRENCY_FIELDS, ("code", "usd"))

    def _code(self, value: object, field: str) -> None:
        self._match(value, field, _CURRENCY, "a currency is three capitals, such as EUR")

    def _currency_rates(self, value: object, field: str) -> None:
        seen: dict[int, str] = {}
        for number, rate in enumerate(self._list(value, field, least=1)):
            place = f"{field}[{number}]"
            start = self._fields(rate, place, _CURRENCY_RATE, ("rate",)).get("from")
            since = ALWAYS[0] if start is None else _ns(start)
            if since is None:
                continue
            if since in seen:
                self.say(_join(place, "from"), f"two rates hold from {_start(start)}: one is enough")
            elif since < max(seen, default=since):
                self.say(_join(place, "from"), "stands after a later one: list rates from the oldest to the newest")
            seen[since] = place

    # -------------------------------------------------------------- models

    def _models(self, value: object, field: str) -> None:
        exact: dict[str, str] = {}
        versioned: dict[str, str] = {}
        for name, entry in self._items(value, field):
            self._model = name
            if name == "*":
                if self._layer:
                    self.say("", "the price of models that the book does not know belongs into a file of your own")
            else:
                self._name(name, "")
            fields = self._fields(entry, "", _MODEL, ())
            # Its own name among its names is idle, but the same name in two models is a matter of luck.
            for names, claimed, key in (
                ([name, *_texts(fields.get("names"))], exact, "names"),
                (_texts(fields.get("versions_of")), versioned, "versions_of"),
            ):
                for other in dict.fromkeys(text.strip().lower() for text in names):
                    self._claim(claimed, other, name, "" if other == name.strip().lower() else key, "model")
            self._circles(fields)
            self._model = ""

    def _claim(self, claimed: dict[str, str], name: str, owner: str, field: str, kind: str) -> None:
        first = claimed.setdefault(name, owner)
        if first != owner:
            self.say(field, f"{_shown(name)} is a name of the {kind} {_shown(first)} already: it can mean one only")

    def _periods(self, value: object, field: str) -> None:
        full: list[tuple[int, int, object]] = []
        for number, period in enumerate(self._list(value, field, least=1)):
            if not isinstance(period, dict):
                self.say(f"{field}[{number}]", f"is {_kind(period)}, not an object with from, to, rates and source")
                continue
            self._period = _start(period.get("from"))
            ends = self._one_period(period)
            if ends is not None and period.get("extends") is not True:
                full.append((*ends, period.get("from")))
            self._period = ""
        full.sort(key=lambda span: span[:2])
        for (_, end, before), (start, _, after) in pairwise(full):
            self._period = _start(after)
            if start < end:
                self.say("from", f"overlaps the period from {_start(before)}: end that one with to = the new from")
            elif start > end and self._layer == "bundled":
                self.say("from", f'leaves a gap after the period from {_start(before)}: add one with "unpriced": "why"')
            self._period = ""

    def _one_period(self, period: dict[str, Any]) -> tuple[int, int] | None:
        self._extends = extends = period.get("extends") is True
        fields = self._fields(period, "", _PERIOD, ())
        if "unpriced" in fields:
            for key in ("rates", "context_tiers", "tiers", "windows", "free", "extends"):
                if key in fields:
                    self.say(key, "stands beside `unpriced`, which says that there is no price: keep one of them")
        elif not extends and not (fields.get("free") is True or fields.keys() & {"rates", "tiers", "windows"}):
            self.say("rates", 'is missing: list prices, or say "free": true, or "unpriced": "why"')
        if "unpriced" not in fields:
            self._sourced(fields, "")
        ends = self._order(fields, "")
        if ends is not None and ends[0] < self._exchanged_from:
            self.say("from", "is before the first rate of currency.usd: give that one an earlier `from`, or none")
        if isinstance(windows := fields.get("windows"), list):
            self._apart(windows, ends[0] if ends else ALWAYS[0])
        return ends

    def _windows(self, value: object, field: str) -> None:
        for number, window in enumerate(self._list(value, field, least=1)):
            place = f"{field}[{number}]"
            extends, self._extends = self._extends, True
            fields = self._fields(window, place, _WINDOW, ("name", "spans"))
            self._extends = extends
            if fields and not fields.keys() & {"rates", "tiers"}:
                self.say(place, "has neither rates nor tiers, so nothing differs in it")

    def _zone_name(self, value: Any, field: str) -> None:
        if self._text(value, field) and _zone(value) is None:
            hint = did_you_mean(value, _zones(), quote=_shown) or "; one is such as Asia/Shanghai"
            if not _zones():
                hint = ", for this machine has no list of them: `pip install tzdata`"
            self.say(field, f"no time zone is known as {_shown(value)}{hint}")

    def _weekdays(self, value: object, field: str) -> None:
        self._match(value, field, _DAYS, "days are such as mon-fri or mon,wed; absent means every day")

    def _clock_spans(self, value: object, field: str) -> None:
        for number, span in enumerate(self._list(value, field, least=1)):
            place = f"{field}[{number}]"
            if not isinstance(span, list) or len(span) != 2:
                self.say(place, f'is {_shown(span)}; a span is a start and an end: ["09:00", "12:00"]')
                continue
            good = [isinstance(time, str) and _CLOCK.fullmatch(time) is not None for time in span]
            if not all(good) or span[0] == "24:00":
                wrong = span[0] if not good[0] or span[0] == "24:00" else span[1]
                self.say(place, f"{_shown(wrong)} is no time of day such as 09:00")
            elif span[0] == span[1]:
                self.say(place, 'ends when it begins; a whole day is ["00:00", "24:00"]')

    def _apart(self, windows: list[Any], start: int) -> None:
        """Says which windows hold at the same time.

        Zones move against each other with the seasons, so a week of January and one of July are looked at.
        """
        year = 2026 if start == ALWAYS[0] else (_EPOCH + timedelta(seconds=start // 10**9)).year
        said: set[tuple[int, int]] = set()
        for month in (1, 7):
            taken: list[tuple[int, int, int]] = []
            for number, window in enumerate(windows):
                hours = _hours(window, datetime(year, month, 15, tzinfo=UTC))
                if hours is None:
                    return  # something in it is wrong, which has been said
                taken += ((*span, number) for span in hours)
            taken.sort()
            last, holder = -1, 0
            for begin, end, number in taken:
                pair = min(holder, number), max(holder, number)
                if begin < last and pair not in said:
                    said.add(pair)
                    place = f"windows[{pair[1]}].spans"
                    if pair[0] == pair[1]:
                        self.say(place, "two of them overlap: join them")
                    else:
                        self.say(
                            place, f"some of their hours are those of windows[{pair[0]}] too: two prices would hold"
                        )
                if end > last:
                    last, holder = end, number

    # -------------------------------------------------------------- prices

    def _rates(self, value: object, field: str) -> None:
        if not self._filled(value, field, "list the meters that are billed, or leave it out"):
            return
        for meter, price in self._items(value, field):
            if meter not in METERS:
                self._meter(meter, f"{field}.{meter}", "")
            elif not (isinstance(price, str) and _DECIMAL.fullmatch(price)):  # nearly all are good: no calls for those
                self._price(price, f"{field}.{meter}")

    def _price(self, value: object, field: str) -> None:
        if isinstance(value, dict):
            self._fields(value, field, _PRICE, ("usd",))
        else:
            self._decimal(value, field)

    def _decimal(self, value: object, field: str) -> bool:
        if isinstance(value, str) and _DECIMAL.fullmatch(value):
            return True
        self.say(field, _no_decimal(value))
        return False

    def _factor(self, value: object, field: str) -> None:
        if self._decimal(value, field) and not str(value).strip("0."):
            self.say(field, "is zero; what costs nothing is marked free instead")

    def _per(self, value: object, field: str) -> None:
        self._whole(value, field, 10**15, "a number of units, such as 3600")

    def _over(self, value: object, field: str) -> None:
        self._whole(value, field, 10**12, "a number of tokens, such as 200000")

    def _whole(self, value: object, field: str, most: int, what: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            self.say(field, f"is {_shown(value)}, not {what}")

    def _allowance(self, value: object, field: str) -> None:
        self._fields(value, field, _ALLOWANCE, ("quantity", "period"))

    def _allowance_period(self, value: object, field: str) -> None:
        if value != "month":
            self.say(field, f'is {_shown(value)}; it is "month"')

    def _context_tiers(self, value: object, field: str) -> None:
        limits: dict[int, str] = {}
        for number, tier in enumerate(self._list(value, field, least=1)):
            place = f"{field}[{number}]"
            fields = self._fields(tier, place, _CONTEXT_TIER, ("over",) if self._extends else ("over", "rates"))
            over = fields.get("over")
            if isinstance(over, int):
                first = limits.setdefault(over, place)
                if first != place:
                    self.say(_join(place, "over"), f"is {over}, and so is that of {first}")

    def _cmp(self, value: object, field: str) -> None:
        if value not in ("gt", "gte"):
            self.say(field, f'is {_shown(value)}; it is "gt" (longer than the limit) or "gte" (the limit too)')

    def _applies_to(self, value: object, field: str) -> None:
        if value != "whole_request":
            self.say(field, f'is {_shown(value)}; it is "whole_request"')

    def _tiers(self, value: object, field: str) -> None:
        if not self._filled(value, field):
            return
        for name, tier in self._items(value, field):
            place = _join(field, name)
            if not _TIER.fullmatch(name):
                self.say(place, "a tier is named in lower case, as the response names it: batch, flex, priority")
            fields = self._fields(tier, place, _TIER_FIELDS, () if self._extends else ("rates",))
            if self._extends and isinstance(tier, dict) and not fields.keys() & {"rates", "context_tiers"}:
                self.say(place, "has no rates: leave it out")

    # -------------------------------------------------------------- fallbacks

    def _fallback(self, value: object, field: str) -> None:
        for meter, other in self._items(value, field):
            if self._meter(meter, _join(field, meter), ""):
                self._meter(other, _join(field, meter), f"{_shown(other)} is an ")
        if circle := _circle(_chain(value)):
            self.say(field, f"goes in a circle: {circle}")

    def _circles(self, model: Mapping[str, Any]) -> None:
        """Says where fallbacks go in a circle that do so only together: those of file, model and period."""
        file, own = self._fallback_of_file, _chain(model.get("fallback"))
        both = {**file, **own}
        if circle := _circle(both):
            if not _circle(file) and not _circle(own):
                self.say("fallback", f"goes in a circle with that of the file: {circle}")
            return
        periods = model.get("periods")
        for period in periods if isinstance(periods, list) else ():
            last = _chain(period.get("fallback")) if isinstance(period, dict) else {}
            if (circle := _circle({**both, **last})) and not _circle(last):
                self._period = _start(period.get("from"))
                self.say("fallback", f"goes in a circle with that of the model: {circle}")
                self._period = ""

    def _meter(self, value: object, field: str, saying: str) -> bool:
        if isinstance(value, str) and value in METERS:
            return True
        self.say(field, f"{saying}unknown meter{did_you_mean(value, METERS, otherwise=True, quote=_shown)}")
        return False

    # -------------------------------------------------------------- values

    def _instant(self, value: object, field: str) -> None:
        if value is None:
            self.say(field, "is null; leave it out if it has no end")
        elif _ns(value) is None:
            self.say(field, f"{_shown(value)} is no instant such as 2026-11-28T16:00:00Z or 2026-11-28")

    def _day(self, value: object, field: str) -> None:
        if not isinstance(value, str) or not _DAY.fullmatch(value) or _ns(value) is None:
            self.say(field, f"{_shown(value)} is no day such as 2026-11-28")

    def _order(self, fields: Mapping[str, Any], field: str) -> tuple[int, int] | None:
        """Both ends of a period in unix nanoseconds, if they are instants, and whether they stand in order."""
        start = _ns(fields["from"]) if "from" in fields else ALWAYS[0]
        end = _ns(fields["to"]) if "to" in fields else ALWAYS[1]
        if start is None or end is None:
            return None
        if end <= start:
            self.say(_join(field, "to"), f"{_shown(fields['to'])} is not after from, {_shown(fields['from'])}")
            return None
        return start, end

    def _sourced(self, fields: Mapping[str, Any], field: str) -> None:
        if self._layer and "source" not in fields:
            self.say(_join(field, "source"), "is missing: name the page where it is published")

    def _source(self, value: Any, field: str) -> None:
        if self._text(value, field) and self._layer and not _URL.fullmatch(value):
            self.say(field, f"{_shown(value)} is no address of a page (https://...)")

    def _bool(self, value: object, field: str) -> None:
        if not isinstance(value, bool):
            self.say(field, f"is {_shown(value)}, not true or false")

    def _schema_version(self, value: object, field: str) -> None:
        if isinstance(value, bool) or value != VERSION:
            self.say(field, f"is {_shown(value)}; it is {VERSION}")

    def _text(self, value: Any, field: str) -> bool:
        if isinstance(value, str) and value:
            return True
        self.say(field, "is empty" if value == "" else f"is {_kind(value)}, not text")
        return False

    def _any_text(self, value: object, field: str) -> None:
        if not isinstance(value, str):
            self.say(field, f"is {_kind(value)}, not text")

    def _match(self, value: Any, field: str, pattern: re.Pattern[str], meaning: str) -> None:
        if self._text(value, field) and not pattern.fullmatch(value):
            self.say(field, f"is {_shown(value)}; {meaning}")

    def _provider_name(self, value: Any, field: str) -> None:
        if self._text(value, field) and re.search(r"[\s*/]", value):
            self.say(field, f"{_shown(value)} is no name of a provider: it holds a space, a star or a slash")

    def _name(self, value: Any, field: str) -> None:
        if not self._text(value, field):
            return
        if value != value.strip():
            self.say(field, f"{_shown(value)} begins or ends with a space")
        elif "*" in value:
            self.say(field, f"{_shown(value)}: a star stands for nothing here; list the names, or use versions_of")

    def _names(self, value: object, field: str) -> None:
        self._distinct(value, field)
        for number, name in enumerate(self._list(value, field)):
            self._name(name, f"{field}[{number}]")

    def _key(self, value: str, field: str) -> None:
        if not value:
            self.say(field, "an empty key would hold for every name")

    def _distinct(self, value: object, field: str) -> None:
        """Says which texts a list has twice, upper and lower case alike."""
        seen: set[str] = set()
        for number, item in enumerate(value if isinstance(value, list) else ()):
            folded = item.strip().lower() if isinstance(item, str) else None
            if folded in seen:
                self.say(f"{field}[{number}]", f"{_shown(item)} stands there twice")
            elif folded is not None:
                seen.add(folded)

    def _list(self, value: object, field: str, least: int = 0) -> list[Any]:
        if not isinstance(value, list):
            self.say(field, f"is {_kind(value)}, not a list")
            return []
        if len(value) < least:
            self.say(field, "is empty: leave it out")
        return value

    def _filled(self, value: object, field: str, advice: str = "leave it out") -> bool:
        if isinstance(value, dict) and not value:
            self.say(field, f"is empty: {advice}")
            return False
        return True

    def _items(self, value: object, field: str) -> Iterable[tuple[str, Any]]:
        if not isinstance(value, dict):
            self.say(field, f"is {_kind(value)}, not an object")
            return ()
        self._twice(value, field)
        return ((key if isinstance(key, str) else str(key), item) for key, item in value.items())

    def _twice(self, value: dict[Any, Any], field: str) -> None:
        if isinstance(value, _Repeated):
            for key in value.twice:
                self.say(_join(field, key), "the key stands there twice: which one is meant?")

    def _fields(
        self,
        value: object,
        field: str,
        known: Mapping[str, Callable[[_Checker, Any, str], object]],
        required: Sequence[str],
    ) -> dict[str, Any]:
        """Holds each field of an object to its rule; gives the object, or an empty one if it is none."""
        if not isinstance(value, dict):
            self.say(field, f"is {_kind(value)}, not an object")
            return {}
        self._twice(value, field)
        for key, item in value.items():
            rule = known.get(key) if isinstance(key, str) else None
            place = f"{field}.{key}" if field else str(key)
            if rule is None:
                self.say(place, f"unknown key{did_you_mean(key, known, otherwise=True, quote=_shown)}")
            else:
                rule(self, item, place)
        for key in required:
            if key not in value:
                self.say(_join(field, key), "is missing")
        return value


def _hours(window: Any, when: datetime) -> list[tuple[int, int]] | None:
    """When a window holds, as minutes of a week in UTC, in the season of ``when``; ``None`` if it is malformed."""
    if not isinstance(window, dict) or not isinstance(window.get("spans"), list):
        return None
    days, zone = window.get("days", "mon-sun"), window.get("tz", "UTC")
    zone = _zone(zone) if isinstance(zone, str) else None
    if zone is None or not isinstance(days, str) or not _DAYS.fullmatch(days):
        return None
    shift = (when.astimezone(zone).utcoffset() or timedelta()) // timedelta(minutes=1)
    found: list[tuple[int, int]] = []
    for span in window["spans"]:
        ends = [
            int(time[:2]) * 60 + int(time[3:])
            for time in (span if isinstance(span, list) else ())
            if isinstance(time, str) and _CLOCK.fullmatch(time)
        ]
        if len(ends) != 2:
            return None
        length = ends[1] - ends[0] + (24 * 60 if ends[1] < ends[0] else 0)
        for day in days_of(days, ""):
            start = (day * 24 * 60 + ends[0] - shift) % _WEEK
            found.append((start, min(start + length, _WEEK)))
            if start + length > _WEEK:
                found.append((0, start + length - _WEEK))
    return found


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    from zoneinfo import available_timezones

    return frozenset(available_timezones())


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo | None:
    from zoneinfo import ZoneInfo

    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name) if _ZONE.fullmatch(name) else None
    except (KeyError, ValueError, OSError):
        return None


@lru_cache(maxsize=4096)
def _read_instant(text: str) -> int | None:
    try:
        found = nanoseconds(text) if _INSTANT.fullmatch(text) else None
    except (ValueError, OverflowError):
        return None
    return found if found is not None and ALWAYS[0] < found < ALWAYS[1] else None


def _ns(value: object) -> int | None:
    """An instant in unix nanoseconds; ``None`` for anything else."""
    return _read_instant(value) if isinstance(value, str) else None


def _first_exchange(currency: object) -> int:
    """Since when prices in a currency can be read, in unix nanoseconds."""
    rates = currency.get("usd") if isinstance(currency, dict) else None
    starts = (
        [_ns(rate["from"]) if "from" in rate else None for rate in rates or () if isinstance(rate, dict)]
        if isinstance(rates, list)
        else []
    )
    return min((ALWAYS[0] if start is None else start for start in starts), default=ALWAYS[0])


def _start(value: object) -> str:
    """How a period is called."""
    return "the beginning" if value is None else value if isinstance(value, str) and value else _shown(value)


def _chain(value: object) -> dict[str, str]:
    """Fallbacks as they are written, without what is malformed."""
    pairs = value.items() if isinstance(value, dict) else ()
    return {meter: other for meter, other in pairs if isinstance(meter, str) and isinstance(other, str)}


def _circle(chain: Mapping[str, str]) -> str:
    """The first circle in a chain of fallbacks, as in "input -> output -> input"; empty if there is none."""
    if not chain.keys() & set(chain.values()):
        return ""
    for meter in chain:
        way = [meter]
        while (other := chain.get(way[-1])) is not None:
            way.append(other)
            if other == meter:
                return " -> ".join(map(_printable, way))
            if other in way[:-1]:
                break  # a circle, but one that this meter only leads to
    return ""


def _no_decimal(value: object) -> str:
    """Why something is no price."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        from decimal import Decimal

        if value < 0:
            return f"is negative: {_shown(value)}"
        if not value < 10**15:
            return f"is {_shown(value)}, which no price is"
        text = format(Decimal(repr(value)), "f")
        return f'is the number {_shown(value)}; a price is a string: "{text}"'
    if not isinstance(value, str):
        return f'is {_kind(value)}; a price is a string such as "0.075"'
    if value.startswith("-") and _DECIMAL.fullmatch(value[1:]):
        return f"is negative: {_shown(value)}"
    return f'is {_shown(value)}; a price is digits, with a point if need be: "0.075"'


def _join(field: str, key: object) -> str:
    return f"{field}.{key}" if field else str(key)


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    return "text" if isinstance(value, str) else "a list" if isinstance(value, list) else "an object"


def _shown(value: object) -> str:
    """A value as JSON, if it is short."""
    if isinstance(value, str):
        return f'"{_printable(value)}"'
    if value is None or isinstance(value, (bool, float)):
        return json.dumps(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**30 else "a number of many digits"
    return _kind(value)


def _printable(text: str) -> str:
    """A text that a terminal and a log take: at most a line of it, and nothing in it that moves the cursor."""
    short = text if len(text) <= 100 else f"{text[:99]}…"
    return short if short.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short)


_COMMENT: Final = {"comment": _Checker._any_text}
_HEAD: Final = {"$schema": _Checker._any_text, "schema_version": _Checker._schema_version, **_COMMENT}

_BOOK: Final = {
    **_HEAD,
    "book_version": _Checker._book_version,
    "dated": _Checker._day,
    "currency": _Checker._currency,
    "providers": _Checker._providers,
}
_FILE: Final = {
    **_HEAD,
    "layer": _Checker._layer_name,
    "provider": _Checker._provider_name,
    "checked": _Checker._day,
    "from": _Checker._origin,
    "aliases": _Checker._names,
    "free": _Checker._free,
    "charged_tiers": _Checker._names,
    "source": _Checker._source,
    "fallback": _Checker._fallback,
    "prefixes": _Checker._prefixes,
    "suffixes": _Checker._suffixes,
    "routes": _Checker._routes,
    "inherits": _Checker._inherits,
    "multipliers": _Checker._multipliers,
    "fees": _Checker._fees,
    "models": _Checker._models,
}
_MODEL: Final = {
    "names": _Checker._names,
    "versions_of": _Checker._names,
    "released": _Checker._day,
    "fallback": _Checker._fallback,
    "periods": _Checker._periods,
    **_COMMENT,
}
_PERIOD: Final = {
    "from": _Checker._instant,
    "to": _Checker._instant,
    "extends": _Checker._bool,
    "rates": _Checker._rates,
    "context_tiers": _Checker._context_tiers,
    "tiers": _Checker._tiers,
    "windows": _Checker._windows,
    "fallback": _Checker._fallback,
    "free": _Checker._bool,
    "unpriced": _Checker._text,
    "source": _Checker._source,
    "checked": _Checker._day,
    "observed": _Checker._bool,
    **_COMMENT,
}
_CONTEXT_TIER: Final = {
    "over": _Checker._over,
    "cmp": _Checker._cmp,
    "applies_to": _Checker._applies_to,
    "rates": _Checker._rates,
}
_TIER_FIELDS: Final = {"rates": _Checker._rates, "context_tiers": _Checker._context_tiers}
_WINDOW: Final = {
    "name": _Checker._text,
    "tz": _Checker._zone_name,
    "days": _Checker._weekdays,
    "spans": _Checker._clock_spans,
    "rates": _Checker._rates,
    "tiers": _Checker._tiers,
    **_COMMENT,
}
_PRICE: Final = {
    "usd": _Checker._decimal,
    "per": _Checker._per,
    "minimum": _Checker._decimal,
    "allowance": _Checker._allowance,
}
_ALLOWANCE: Final = {"quantity": _Checker._decimal, "period": _Checker._allowance_period}
_MULTIPLIER: Final = {
    "id": _Checker._text,
    "geo": _Checker._geo,
    "factor": _Checker._factor,
    "scope": _Checker._scope,
    "models": _Checker._models_meant,
    "released_from": _Checker._day,
    "from": _Checker._instant,
    "to": _Checker._instant,
    "source": _Checker._source,
    **_COMMENT,
}
_FEE: Final = {"rates": _Checker._rates, "models": _Checker._models_meant, "source": _Checker._source, **_COMMENT}
_CURRENCY_FIELDS: Final = {"code": _Checker._code, "usd": _Checker._currency_rates, **_COMMENT}
_CURRENCY_RATE: Final = {
    "from": _Checker._instant,
    "rate": _Checker._factor,
    "source": _Checker._source,
    **_COMMENT,
}
