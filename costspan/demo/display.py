"""The demo on a terminal: calls and their cost as they come in, then the summary."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from costspan.render import UNKNOWN, budget_bar, format_tokens, format_usd, money, session_line, summary_view

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from rich.console import RenderableType

    from costspan.demo.script import Turn
    from costspan.demo.session import Call, Session
    from costspan.summaries import Summary

TITLE = "costspan demo"
SUBTITLE = "real SDKs, loopback providers: nothing leaves this machine"
COLOURS = {"openai": "green", "anthropic": "bright_magenta", "gcp.gemini": "bright_blue"}
SPEECH_LINES = 6
WIDTH = 80
"""Columns of the picture; a terminal of the usual width shows all of it."""


class Stage:
    """Shows a session while it happens, on a console that is a terminal; on any other it stays silent."""

    def __init__(self, console: Console, session: Session, *, silent: bool = False) -> None:
        self._console = console
        self._session = session
        self._silent = silent
        self._speaking: Turn | None = None
        self._speech = ""
        self._waiting: str | None = None
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(
            console=console, get_renderable=self._frame, refresh_per_second=12, transient=True, auto_refresh=True
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._silent:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Say what takes time within the block."""
        self._waiting = what
        try:
            yield
        finally:
            self._waiting = None

    @contextmanager
    def speaking(self, turn: Turn) -> Iterator[None]:
        """Somebody was asked, and answers within the block."""
        self._speaking, self._speech = turn, ""
        try:
            yield
        finally:
            self._speaking = None

    def hear(self, text: str) -> None:
        """More of the answer."""
        self._speech += text

    def _frame(self) -> RenderableType:
        # The newest calls where the terminal is too low for all of them: title, heading, speech and footer stay.
        room = max(3, self._console.height - SPEECH_LINES - 14)
        return Group(
            _title(),
            calls_table(self._session.calls[-room:], self._pending()),
            self._talk(),
            Text(),
            *_footer(self._session),
        )

    def _pending(self) -> tuple[RenderableType, ...] | None:
        if self._waiting is not None:
            return (self._spinner, Text(self._waiting, style="dim"))
        if self._speaking is not None:
            persona = self._speaking.persona
            return (Text(persona.name, style="bold"), Text(persona.model, style="dim"), "", "", "", self._spinner)
        return None

    def _talk(self) -> RenderableType:
        if self._speaking is None:
            return Text("\n" * SPEECH_LINES)
        talk = Text(f"{self._speaking.ask}\n", style="dim").append(self._speech, style="default")
        lines = talk.wrap(self._console, min(self._console.width, WIDTH))[-SPEECH_LINES:]
        return Group(*lines, *[Text()] * (SPEECH_LINES + 1 - len(lines)))


def calls_table(calls: list[Call], pending: tuple[RenderableType, ...] | None = None) -> Table:
    """The calls so far, one a row, and the one that is under way."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    # Wide enough from the start, so that nothing moves when the next row comes.
    table.add_column("persona", min_width=9, no_wrap=True)
    table.add_column("model", min_width=31, no_wrap=True, overflow="ellipsis")
    for heading in ("input", "cached", "output"):
        table.add_column(heading, justify="right", min_width=6, no_wrap=True)
    table.add_column("cost", justify="right", min_width=9, no_wrap=True)
    for call in calls:
        table.add_row(*_row(call))
    if pending:
        table.add_row(*pending)
    return table


def _row(call: Call) -> tuple[RenderableType, ...]:
    name = Text(call.turn.persona.name)
    model = Text(f"{call.provider}/", style=COLOURS.get(call.provider, "cyan")).append(call.model, style="default")
    if call.refusal is not None:
        return (name, model, UNKNOWN, UNKNOWN, UNKNOWN, Text("refused", style="bold red"))
    counts = (call.input, call.cached, call.output)
    cells = (Text(format_tokens(count) if count else UNKNOWN) for count in counts)
    return (name, model, *cells, money(call.cost, per="message"))


def _title() -> RenderableType:
    return Text.assemble((TITLE, "bold"), (f"  {SUBTITLE}\n", "dim"))


def _footer(session: Session) -> list[RenderableType]:
    totals, budget = session.totals, session.budget
    lines: list[RenderableType] = [
        session_line(totals.cost, totals.calls, totals.tokens),
        budget_bar(f"budget {budget.name!r}", totals.cost, budget.limit),
        *(Text(alert, style="yellow") for alert in session.alerts[-1:]),
    ]
    if (refusal := session.refusal) is not None:
        left = format_usd(refusal.limit - refusal.spent - refusal.held)
        lines.append(
            Text.assemble(
                ("refused before it was sent: ", "bold red"),
                (f"the call may cost {format_usd(refusal.asked)}, and {left} is left", "red"),
            )
        )
    return lines


def picture(session: Session, summary: Summary) -> RenderableType:
    """All of it, as it stands at the end."""
    parts = (calls_table(session.calls), Text(), *_footer(session), Text(), summary_view(summary))
    return Group(_title(), *parts)


_THEME = TerminalTheme(
    (13, 17, 23),
    (230, 237, 243),
    [(72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34), (88, 166, 255), (188, 140, 255), (57, 197, 207),
     (177, 186, 196)],
    [(110, 118, 129), (255, 161, 152), (86, 211, 100), (227, 179, 65), (121, 192, 255), (210, 168, 255), (86, 212, 221),
     (255, 255, 255)],
)  # fmt: skip

_SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<title>{TITLE}</title>
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: ui-sans-serif, system-ui, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
""".replace("{TITLE}", TITLE)
"""rich's own template fetches its font from the net; a picture in a README must not."""


def picture_svg(session: Session, summary: Summary) -> str:
    """The picture of the terminal as SVG, with no reference to anything outside itself."""
    console = Console(
        file=io.StringIO(),
        record=True,
        width=WIDTH + 2,
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    console.print(Padding(picture(session, summary), (0, 1, 1, 1)))
    return console.export_svg(title="costspan demo", theme=_THEME, code_format=_SVG, unique_id="costspan")
