"""Where prices come from, and the settings in force with their origin."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, get_args

from costspan import settings as settings_module
from costspan.book import DOWNLOADED, folder, price_book
from costspan.doctor import Problem
from costspan.settings import GenAIMetrics, Settings, load, variables
from costspan_pricing.words import did_you_mean
from costspan_processor.attribution import KEYS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from costspan_pricing import BookError

ABOUT_PRICES: Final = "prices"
ABOUT_SETTINGS: Final = "settings"

_OLD: Final = 45
"""Days after which a book is likely to lack a price that changed: providers change theirs every month or two."""

_INTERNAL: Final = frozenset(("COSTSPAN_RUN", "COSTSPAN_DOCTOR"))
"""Variables by which our own commands speak to the programs that they run."""


# ------------------------------------------------------------------ prices


def look_at_prices(environ: Mapping[str, str], now: float | None = None) -> tuple[dict[str, Any], list[Problem]]:
    """The book and its layers, the lowest first. `now` is unix seconds, by default the clock's."""
    settings = load({}, environ)
    book = price_book(settings, refuse=lambda _: None)
    days = int(((time.time() if now is None else now) - book.dated) // 86_400)
    layers = list(_layers(settings))
    facts = {
        "book": book.version,
        "checked": datetime.fromtimestamp(book.dated, UTC).date().isoformat(),
        "age_days": days,
        "providers": len(book.providers),
        "layers": layers,
    }
    problems = [
        Problem(
            "fault",
            ABOUT_PRICES,
            layer["error"],
            "This layer is left out: calls are priced by those below it, or not at all.",
            _REMEDIES[layer["layer"]].format(**layer),
        )
        for layer in layers
        if layer["error"] is not None
    ]
    if days > _OLD:
        problems.append(
            Problem(
                "warning",
                ABOUT_PRICES,
                f"the newest price of the book was checked {days} days ago",
                "Prices that changed since then are charged as they were, and newer models have none.",
                "`costspan prices update`, or a newer costspan: pip install -U costspan",
            )
        )
    return facts, problems


_REMEDIES: Final = {
    "downloaded": "`costspan prices update` fetches another one.",
    "file": "`costspan prices check {origin}` names every error of the file.",
    "environment": "Correct COSTSPAN_PRICES, or unset it.",
    "names": "Correct COSTSPAN_MODEL_NAMES, or unset it.",
}


def _layers(settings: Settings) -> Iterator[dict[str, Any]]:
    """Every layer that there is, laid over those before it as `price_book` does, and what is wrong with it."""
    downloaded = folder(settings) / DOWNLOADED
    below = replace(settings, price_file="", prices="", model_names=())
    with_file = replace(below, price_file=settings.price_file)
    with_prices = replace(with_file, prices=settings.prices)
    yield {"layer": "bundled", "origin": "the package", "error": None}
    known = 0
    for layer, origin, there, laid in (
        ("downloaded", str(downloaded), downloaded.is_file(), below),
        ("file", settings.price_file, bool(settings.price_file), with_file),
        ("environment", "COSTSPAN_PRICES", bool(settings.prices), with_prices),
        ("names", "COSTSPAN_MODEL_NAMES", bool(settings.model_names), settings),
    ):
        if there:
            errors: list[BookError] = []
            price_book(laid, refuse=errors.append)
            yield {"layer": layer, "origin": origin, "error": str(errors[known]) if len(errors) > known else None}
            known = len(errors)


# ------------------------------------------------------------------ settings


def look_at_settings(environ: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Every setting with its value and where that is from, and the variables that mean nothing."""
    facts = []
    problems = []
    for field in fields(Settings):
        variable = field.metadata["variable"]
        text = environ.get(variable, "").strip()
        read = settings_module._read(text, field.default, field.name) if text else None
        value = field.default if read is None else read
        facts.append(
            {
                "setting": field.name,
                "variable": variable,
                # What may hold a password or a token goes into no report.
                "value": "(set)" if field.metadata["secret"] and read else _listed(value),
                "origin": "default" if read is None else "environment",
            }
        )
        if text and read is None:
            problems.append(
                Problem(
                    "fault",
                    ABOUT_SETTINGS,
                    f"{variable}={text} is not understood",
                    f"It stays {settings_module._shown(value)}.",
                    f"Set it to {_wanted(field.default)}.",
                )
            )
    settings = load({}, {name: text for name, text in environ.items() if name in _known()})
    return facts, [*problems, *_meaningless(settings, environ)]


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _known() -> set[str]:
    return {name for name, _, _ in variables()}


def _wanted(default: object) -> str:
    if isinstance(default, bool):
        return "true or false"
    return "a whole number above 0" if isinstance(default, int) else " or ".join(get_args(GenAIMetrics))


def _meaningless(settings: Settings, environ: Mapping[str, str]) -> Iterator[Problem]:
    if not settings.enabled:
        yield Problem(
            "warning",
            ABOUT_SETTINGS,
            "COSTSPAN_ENABLED switches costspan off",
            "Nothing is patched, priced or counted, and no budget holds.",
            "If that is not meant, unset COSTSPAN_ENABLED.",
        )
    for name in sorted(environ):
        if name.startswith("COSTSPAN_") and name not in _known() | _INTERNAL:
            yield Problem(
                "warning",
                ABOUT_SETTINGS,
                f"there is no variable {name}{did_you_mean(name, _known())}",
                "It has no effect.",
                "Correct its name, or unset it; docs/configuration.md lists all.",
            )
    for name in settings.dimensions:
        if name not in KEYS.values() and not name.startswith("costspan.tag."):
            meant = KEYS.get(name) or f"costspan.tag.{name}"
            yield Problem(
                "warning",
                ABOUT_SETTINGS,
                f"COSTSPAN_DIMENSIONS has {name!r}, which no call is booked on",
                "The label never appears on a metric.",
                f"Name the attribute: {meant}. The others are {', '.join(KEYS.values())} and costspan.tag.<name>.",
            )
