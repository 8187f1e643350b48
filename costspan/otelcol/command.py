"""`costspan otelcol-config`: write the configuration of a stock OpenTelemetry Collector that prices spans."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from costspan.commands import fail

if TYPE_CHECKING:
    from costspan.otelcol.table import Table


_fail: Final = partial(fail, "costspan otelcol-config")


def otelcol_config(
    models: Annotated[
        list[str] | None,
        typer.Option(metavar="MODELS", help="Models, as provider/model, with commas between them.", show_default=False),
    ] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="All models of a provider; may be given again.", show_default=False),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Where spans go on to: host:port for OTLP over gRPC, a URL for HTTP.  [default: localhost:14317]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write there, not to standard output.", show_default=False)
    ] = None,
    lookup: Annotated[
        bool, typer.Option("--lookup", help="Instead: the prices alone, for contrib's lookup processor.")
    ] = False,
) -> None:
    """Write a configuration with which a stock OpenTelemetry Collector prices spans.

    It needs contrib's transform and delta-to-cumulative processors and its signal-to-metrics connector. Prices only:
    it keeps no budgets, and models that are not named are marked as unpriced.
    """
    from costspan.book import price_book
    from costspan.otelcol.config import config
    from costspan.otelcol.lookup import lookup as as_lookup
    from costspan.otelcol.table import SelectionError, table
    from costspan.settings import load
    from costspan_pricing import BookError

    if lookup and endpoint is not None:
        _fail("--endpoint is for the configuration and says nothing of --lookup")
    names = [name for given in models or () for name in given.split(",") if name.strip()]
    try:
        made = table(price_book(load({}), refuse=_fail), names, provider or ())
        if lookup:
            text = as_lookup(made, time.time_ns())
        else:
            forward = _forward(endpoint or "localhost:14317")
            text = config(made, forward, http="://" in forward)
    except (SelectionError, BookError) as error:
        _fail(error)
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        _fail(f"{out} cannot be written ({error.strerror}): give --out a file in a folder that is there")
    typer.echo(_said(made, out), err=True)


def _said(made: Table, out: Path) -> str:
    left = f"; {len(made.left_out)} left out, the file says why" if made.left_out else ""
    return f"{out}: {len(made.models)} models, price book {made.version}{left}"


def _forward(address: str) -> str:
    """An address as the collector takes it. Anything that YAML or the collector would read otherwise is refused."""
    import re

    if not re.fullmatch(r"(?:https?://)?(?:\[[0-9a-fA-F:]+\]|[\w.-]+)(?::\d{1,5})?(?:/[\w./-]*)?", address) or (
        "://" not in address and ":" not in address
    ):
        _fail(f"--endpoint: {address!r} is no host:port, and no URL such as http://localhost:4318")
    return address
