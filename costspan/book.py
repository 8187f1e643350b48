"""The price book of this process: what comes with the package, and what was downloaded, configured or given over it."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from costspan_pricing import BookError, PriceBook

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costspan.settings import Settings

_log = logging.getLogger("costspan")

DOWNLOADED: Final = "book.json"
"""The file that `costspan prices update` keeps, in `folder(settings)`."""


def folder(settings: Settings) -> Path:
    """Where a downloaded book is kept: `COSTSPAN_PRICE_FOLDER`, else the user's data folder."""
    if settings.price_folder:
        return Path(settings.price_folder).expanduser()
    home = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_DATA_HOME")
    return Path(home or Path.home() / ".local" / "share") / "costspan" / "prices"


def price_book(
    settings: Settings,
    prices: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    refuse: Callable[[BookError], None] | None = None,
) -> PriceBook:
    """The book with all its layers: bundled < overlay < downloaded < file < environment < `prices` (from code).

    A layer that cannot be read is left out, and the book below it stays in force; `refuse` is called with the reason,
    by default to log it. What is wrong with `prices` is raised: they are an argument of the caller.
    """
    refused = refuse or _logged
    book = PriceBook.bundled()

    def lay(over: Callable[[PriceBook], PriceBook]) -> None:
        nonlocal book
        try:
            book = over(book)
        except BookError as error:
            refused(error)

    downloaded = folder(settings) / DOWNLOADED
    if downloaded.is_file():
        lay(lambda book: _newer(book, downloaded))
    if settings.price_file:
        lay(lambda book: book.with_file(Path(settings.price_file).expanduser()))
    if settings.prices:
        lay(lambda book: book.with_prices(_parsed(settings.prices), layer="environment"))
    if settings.model_names:
        lay(lambda book: book.with_names(_pairs(settings.model_names)))
    return book.with_prices(prices) if prices else book


def _newer(book: PriceBook, path: Path) -> PriceBook:
    over = book.with_file(path, layer="downloaded")
    if over.version < book.version:
        raise BookError(
            f"{path}: the downloaded book {over.version} is older than {book.version}, which came with the package, "
            "and is not used; `costspan prices update` fetches a newer one"
        )
    return over


def _parsed(text: str) -> Mapping[str, Mapping[str, Any]]:
    form = '{"openai/gpt-4.1": {"input": "1.80"}}'
    try:
        prices = json.loads(text)
    except ValueError as error:
        raise BookError(f"COSTSPAN_PRICES is no JSON ({error}); it looks like {form}") from None
    if not isinstance(prices, dict) or not all(isinstance(rates, dict) for rates in prices.values()):
        raise BookError(f"COSTSPAN_PRICES has not the form {form}")
    return prices


def _pairs(names: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for name in names:
        raw, sign, model = name.rpartition("=")
        if not sign:
            raise BookError(f"COSTSPAN_MODEL_NAMES: {name!r} has not the form azure/my-deployment=gpt-4.1")
        pairs[raw.strip()] = model.strip()
    return pairs


def _logged(error: BookError) -> None:
    _log.error("costspan: prices are left out, the others stay in force: %s", error)
