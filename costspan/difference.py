"""`costspan prices diff`: what differs between two books, by model, time, tier and meter."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from costspan.rates import day_text, instant_text, multiplier_text, plural, price_text, table, variants
from costspan_pricing import PriceBook
from costspan_pricing.check import load
from costspan_pricing.shelf import in_usd
from costspan_pricing.timeline import ALWAYS, layered, spans

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import RenderableType

BUNDLED: Final = "bundled"
"""What stands for the book of the package where a file could be named."""

_FREE: Final = "whatever has no price"


def difference(before: str, after: str) -> dict[str, Any]:
    """What differs between two files of prices, or one and the book of the package: `BUNDLED`. Ready for JSON.

    Two files are compared as they stand. Beside the book of the package, a file counts as that book with the file laid
    over it. Raises `BookError` for a file that cannot be used.
    """
    old, new = _side(before, after), _side(after, before)
    added: list[str] = []
    removed: list[str] = []
    changed: list[dict[str, Any]] = []
    for provider in sorted({*old, *new}):
        files = old.get(provider, ()), new.get(provider, ())
        if files[0] == files[1]:
            continue
        one, other = (timelines(provider, side) for side in files)
        added += (f"{provider}/{model}" for model in sorted(other.keys() - one.keys()))
        removed += (f"{provider}/{model}" for model in sorted(one.keys() - other.keys()))
        changed += _changes(provider, "", [_shared(files[0])], [_shared(files[1])])
        for model in sorted(one.keys() & other.keys()):
            changed += _changes(provider, model, one[model], other[model])
    return {"a": before, "b": after, "added": added, "removed": removed, "changed": changed}


def timelines(provider: str, files: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Model -> its periods over the files of a provider, the lowest layer first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        for model, entry in file.get("models", {}).items():
            upper = spans(entry.get("periods", ()), file["layer"], f"{provider}/{model}")
            found[model] = layered(found.get(model, []), upper)
    return found


def _side(name: str, other: str) -> dict[str, tuple[Mapping[str, Any], ...]]:
    """A book as its provider -> its files, the lowest layer first."""
    bundled = PriceBook.bundled()
    if BUNDLED in {name, other}:
        book = bundled if name == BUNDLED else bundled.with_file(Path(name).expanduser())
        return {provider: book.files(provider) for provider in book.providers}
    return {
        provider: tuple({**file, "layer": name} for file in (files if isinstance(files, list) else [files]))
        for provider, files in in_usd(load(Path(name).expanduser()))["providers"].items()
    }


def _shared(files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What holds for all models of a provider, as if it were a period of a model of its own."""
    fees = {meter: price for file in files for fee in file.get("fees", ()) for meter, price in fee["rates"].items()}
    factors = {m["id"]: multiplier_text(m) for file in files for m in file.get("multipliers", ())}
    return {"from_ns": ALWAYS[0], "to_ns": ALWAYS[1], "rates": fees, "factors": factors}


def _changes(
    provider: str, model: str, old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """What changed in a model, once for each stretch of time in which the same did."""
    cuts = sorted({period[end] for periods in (old, new) for period in periods for end in ("from_ns", "to_ns")})
    stretches: list[tuple[int, int, dict[tuple[str, str], tuple[Any, Any]]]] = []
    for start, end in pairwise(cuts):
        before, after = (_prices_at(periods, start) for periods in (old, new))
        changed = {
            key: (before.get(key), after.get(key))
            for key in dict.fromkeys((*before, *after))
            if _worth(before.get(key)) != _worth(after.get(key))
        }
        if changed and stretches and stretches[-1][1:] == (start, changed):
            stretches[-1] = (stretches[-1][0], end, changed)
        elif changed:
            stretches.append((start, end, changed))
    for start, end, changed in stretches:
        for (variant, meter), (was, now) in changed.items():
            yield {
                "provider": provider,
                "model": model or None,
                "from": instant_text(start),
                "to": instant_text(end),
                "for": variant,
                "meter": meter,
                "old": was,
                "new": now,
                "percent": _percent(was, now),
            }


def _prices_at(periods: Sequence[Mapping[str, Any]], at_ns: int) -> dict[tuple[str, str], Any]:
    """(what for, meter) -> price, in the period that holds."""
    period = next((period for period in periods if period["from_ns"] <= at_ns < period["to_ns"]), {})
    found = {(label, meter): price for label, rates in variants(period) for meter, price in rates.items()}
    found |= {("factor", name): text for name, text in period.get("factors", {}).items()}
    if period.get("free"):
        found["standard", _FREE] = "0"
    return found


def _worth(price: Any) -> Any:
    """A price such that equal ones are equal however they are written."""
    written = price if isinstance(price, dict) else {"usd": price}
    try:
        amounts = {key: Fraction(value) for key, value in written.items() if key in {"usd", "minimum"}}
    except (ValueError, TypeError):
        return price  # none, or the words of a factor
    return {**amounts, "per": written.get("per"), "allowance": str(written.get("allowance"))}


def _percent(old: Any, new: Any) -> float | None:
    """By how much a price rose, in percent; None where that means nothing."""
    before, after = _worth(old), _worth(new)
    if not (isinstance(before, dict) and isinstance(after, dict)) or before["per"] != after["per"] or not before["usd"]:
        return None
    return round(float((after["usd"] - before["usd"]) / before["usd"] * 100), 2)


def view(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A difference for people."""
    from rich.text import Text

    added, removed, changed = found["added"], found["removed"], found["changed"]
    if not (added or removed or changed):
        yield Text("no difference")
        return
    for name in added:
        yield Text(f"added    {name}", style="green")
    for name in removed:
        yield Text(f"removed  {name}", style="red")
    if changed:
        yield table(
            ("model", "from", "to", "for", "meter", "was", "is", "percent"),
            [
                (
                    f"{change['provider']}/{change['model'] or '(all)'}",
                    day_text(change["from"]) or "always",
                    day_text(change["to"]),
                    change["for"],
                    change["meter"],
                    price_text(change["old"], change["meter"], unit=False),
                    price_text(change["new"], change["meter"], unit=False),
                    _percent_text(change["percent"]),
                )
                for change in changed
            ],
            left=(0, 1, 2, 3, 4),
        )
    yield Text(f"{len(added)} added, {len(removed)} removed, {plural(len(changed), 'price')} changed")


def _percent_text(percent: float | None) -> Any:
    from rich.text import Text

    return "" if percent is None else Text(f"{percent:+g} %", style="red" if percent > 0 else "green")
