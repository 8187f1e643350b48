"""How an error ends that has a name in it which nobody knows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def did_you_mean(
    word: object, known: Iterable[str], *, otherwise: bool = False, quote: Callable[[str], str] = repr
) -> str:
    """The end of a sentence: the known name nearest to a word; with `otherwise` all of them, where none is near.

    >>> did_you_mean("opneai", ["openai", "google"]), did_you_mean("x", ["openai"])
    ("; did you mean 'openai'?", '')
    >>> did_you_mean(3, ["openai", "our own"], otherwise=True)
    "; known are openai, 'our own'"
    """
    from difflib import get_close_matches

    known = list(known)
    names = {name.lower(): name for name in known}
    # Comparing takes the square of the length.
    close = get_close_matches(word.lower(), names, n=1) if isinstance(word, str) and len(word) < 100 else []
    if close:
        return f"; did you mean {quote(names[close[0]])}?"
    # Names that people give may hold spaces and commas.
    listed = [name if re.fullmatch(r"[\w./:-]+", name) else quote(name) for name in known]
    return f"; known are {', '.join(listed) or 'none'}" if otherwise else ""
