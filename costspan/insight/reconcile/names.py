"""Whose model an invoice means: its names for a model, and those of calls, brought to one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from costspan_pricing.shelf import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from costspan_pricing import PriceBook

SEARCHES: Final = "web searches"
"""What searches are put under, which invoices show apart from the model that searched."""
SEARCH_METERS: Final = frozenset({"web_searches", "grounded_prompts", "social_searches"})

_SEARCH: Final = re.compile(r"web[ _]?search|grounding with|grounded", re.IGNORECASE)
_UNSURE: Final = frozenset({"fallback", "free"})
"""Rules of the book that take any name."""
_VENDOR: Final = re.compile(r"^(?:[a-z][a-z0-9-]*\.)+(?=[a-z])")
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+(?:\.\d+)*")
_FAMILY: Final = re.compile(r"^(claude)(\d+)(haiku|sonnet|opus)$")
_LONGEST: Final = 8
"""Words that a name of a model has at most."""


class Names:
    """Finds the models that names mean. Models that cost the same whatever their version are one."""

    def __init__(self, book: PriceBook) -> None:
        self._book = book
        self._calls: dict[tuple[str | None, str | None, str | None], tuple[str, str, bool]] = {}
        self._invoiced: dict[tuple[str, str], str | None] = {}
        self._squashed: dict[str, dict[str, str]] = {}

    def of_call(self, provider: str | None, answered: str | None, asked: str | None) -> tuple[str, str, bool]:
        """The provider and model of a call as the book calls them, and whether it knows the model."""
        key = provider, answered, asked
        found = self._calls.get(key)
        if found is None:
            book = self._book
            match = None
            for model in (answered, asked):
                if provider is not None and model is not None and match is None:
                    match = book.match(provider, model)
            own = book.canonical(provider or "")
            name = answered or asked or ""
            found = (own, name, False) if match is None else (own, plain(match.provider, match.model), True)
            if match is not None and match.rule in _UNSURE:
                found = own, name, True
            self._calls[key] = found
        return found

    def of_invoice(self, provider: str, name: str) -> str | None:
        """The model that an invoice names; None if no model of the book is in the name.

        Names may have more around them: `priority | gpt-4.1-2025-04-14, input`, `Claude Sonnet 4.5`, `Generate content
        output token count gemini 2.5 flash short input text`, `USE1-Claude3.5Sonnet-input-tokens`.
        """
        key = provider, name
        if key not in self._invoiced:
            self._invoiced[key] = self._find(provider, name)
        return self._invoiced[key]

    def _find(self, provider: str, name: str) -> str | None:
        if _SEARCH.search(name):
            return SEARCHES
        for part in name.split("|"):
            for text in (part, part.partition(",")[0], part.rpartition("/")[2]):
                match = self._book.match(provider, text.strip()) if text.strip() else None
                if match is not None and match.rule not in _UNSURE:
                    return plain(match.provider, match.model)
        known = self._known(provider)
        # An image model of Google is named like this beside the text model that it is made of.
        text = re.sub(r"native image generation", "image", name, flags=re.IGNORECASE)
        return next((known[found] for found in _windows(text) if found in known), None)

    def _known(self, provider: str) -> dict[str, str]:
        """Every model of a provider by the letters and digits of its name alone."""
        known = self._squashed.get(provider)
        if known is None:
            models = [(model, plain(provider, model)) for model in self._book.models(provider)]
            known = {_squashed(name): name for _, name in models}
            known |= {_squashed(model): name for model, name in models}
            for _, name in models:
                for ending in ("-preview", "-latest", "-0"):
                    known.setdefault(_squashed(name.removesuffix(ending)), name)
            known.pop("", None)
            self._squashed[provider] = known
        return known


def plain(provider: str, model: str) -> str:
    """The name of a model without its version, and on Bedrock without region and vendor.

    >>> plain("aws", "regional.anthropic.claude-sonnet-4-5-20250929-v1:0"), plain("openai", "gpt-4.1")
    ('claude-sonnet-4-5', 'gpt-4.1')
    """
    if provider != "aws":
        return model
    name = _VENDOR.sub("", model)
    while (shorter := VERSION.sub("", name)) != name:
        name = shorter
    return name


def bare(name: str) -> str:
    """What an invoice says of a model that the book does not know, without the tier before and the tokens behind it.

    >>> bare("priority | gpt-99-2031-01-01, cached input"), bare("Vector storage, GB")
    ('gpt-99-2031-01-01', 'Vector storage, GB')
    """
    found = re.fullmatch(r"(?:[\w ]+ \| )?([\w.:-]+), [\w ,]+", name)
    return name if found is None else found[1]


def _squashed(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _windows(text: str) -> Iterator[str]:
    """Words that stand together, squashed: the longest first, and of the same length the first ones."""
    words = _WORD.findall(text)
    for length in range(min(_LONGEST, len(words)), 1, -1):
        for first in range(len(words) - length + 1):
            squashed = _squashed("".join(words[first : first + length]))
            yield squashed
            if turned := _FAMILY.match(squashed):
                yield f"{turned[1]}{turned[3]}{turned[2]}"
