"""What a chat client shows of its costs: a line for the session, one for each message, and a status bar.

Amounts as everywhere (`costspan.render`), but in a line without the zeros that say nothing: $0.15, not $0.1500.
"""

from __future__ import annotations

import os
import shutil
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.text import Text

from costspan.render import format_share, format_tokens, format_usd, style_of

if TYPE_CHECKING:
    from types import TracebackType

_BAR = (" | ", "dim")


def session_cost(cost: Decimal | None, messages: int, tokens: int) -> Text:
    """What a session has cost so far. `str()` of it is the plain line.

    >>> str(session_cost(Decimal("2.45"), 12, 15_200))
    'Session Cost: $2.45 | Messages: 12 | Tokens: 15.2k'
    """
    return Text.assemble(
        "Session Cost: ", (_short(cost), style_of(cost, "day")), _BAR, f"Messages: {messages:,}", _BAR,
        f"Tokens: {format_tokens(tokens)}",
    )  # fmt: skip


def message_cost(cost: Decimal | None, tokens: int, model: str) -> Text:
    """What one message has cost, to stand behind it. A dash where it has no price.

    >>> str(message_cost(Decimal("0.15"), 1_200, "Claude-3.5-Sonnet")), str(message_cost(None, 900, "our-own"))
    ('$0.15 (1.2k tokens) Claude-3.5-Sonnet', '— (900 tokens) our-own')
    """
    return Text.assemble((_short(cost), style_of(cost)), f" ({format_tokens(tokens)} tokens) ", (model, "dim"))


def status_bar(session: Decimal | None, today: Decimal | None = None, budget_used: float | None = None) -> Text:
    """Session, day and the share of the budget that is used; what is not known is left out.

    >>> str(status_bar(Decimal("2.45"), Decimal("8.90"), 0.45)), str(status_bar(Decimal("2.45")))
    ('Session: $2.45 | Today: $8.90 | Budget: 45%', 'Session: $2.45')
    """
    bar = Text.assemble("Session: ", (_short(session), style_of(session, "day")))
    if today is not None:
        bar.append_text(Text.assemble(_BAR, "Today: ", (_short(today), style_of(today, "day"))))
    if budget_used is not None:
        style = "green" if budget_used < 0.75 else "yellow" if budget_used < 1 else "bold red"
        bar.append_text(Text.assemble(_BAR, "Budget: ", (format_share(budget_used).replace(" ", ""), style)))
    return bar


def _short(amount: Decimal | None) -> str:
    text = format_usd(amount)
    whole, point, places = text.partition(".")
    if amount is None or not point or text.startswith(("<", ">")):
        return text
    return f"{whole}.{places.rstrip('0').ljust(2, '0')}"


class LastLine:
    """A line that stays at the bottom of a terminal while a program writes above it; nothing where there is none."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._on = self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._size = (0, 0)
        self._shown = ""

    def __enter__(self) -> LastLine:
        return self

    def show(self, line: Text) -> None:
        """Show a line, and again where the terminal has another size now."""
        if not self._on:
            return
        size = shutil.get_terminal_size()
        columns, rows = size
        if rows < 3:
            return
        said = ""
        if size != self._size:
            # The program scrolls in all lines but the last; one line up first, where it stands on that one.
            said += f"\n\x1b7\x1b[1;{rows - 1}r\x1b8\x1b[1A"
            self._size, self._shown = size, ""
        console = Console(width=columns, force_terminal=True, highlight=False)
        with console.capture() as captured:
            console.print(line, end="", no_wrap=True, overflow="ellipsis", crop=True)
        if captured.get() == self._shown:
            return
        self._shown = captured.get()
        self._write(f"{said}\x1b7\x1b[{rows};1H\x1b[2K{self._shown}\x1b8")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._size != (0, 0):
            self._write(f"\x1b7\x1b[r\x1b[{self._size[1]};1H\x1b[2K\x1b8")
            self._size = (0, 0)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            # The terminal has gone.
            self._on = False
