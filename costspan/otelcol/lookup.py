"""The price book in the form of contrib's lookup processor: a YAML map from key to fields, and how to ask it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from costspan.otelcol.ottl import literal
from costspan.otelcol.table import METERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from costspan.otelcol.table import Table

_HEAD: Final = """\
# Prices for contrib's lookup processor (source type yaml): provider/model, as spans name them in small letters -> rates
# in picodollars (10^-12 USD) a token that hold now for short prompts in the standard service tier. Written by
# `costspan otelcol-config --lookup` from price book {version}.
#
#   processors:
#     lookup:
#       source: {{type: yaml, path: /etc/otelcol/prices.yaml}}
#       lookups:
#         - key: Concat([span.attributes["gen_ai.provider.name"], span.attributes["gen_ai.response.model"]], "/")
#           attributes:
#             - {{source: input, destination: costspan.rate.input}}
#             - {{source: output, destination: costspan.rate.output}}
#
# Nothing here has been run: the processor is in no stock distribution. It looks things up and computes nothing, so that
# a transform processor behind it multiplies.
"""


def lookup(table: Table, at_ns: int) -> str:
    """The table as YAML, of the rates that hold at an instant (unix nanoseconds)."""
    return _HEAD.format(version=table.version) + "".join(
        f"{literal(name)}: {literal(rates)}\n" for name, rates in _entries(table, at_ns)
    )


def _entries(table: Table, at_ns: int) -> Iterator[tuple[str, dict[str, object]]]:
    for alias, provider in sorted(table.providers.items()):
        for name, found in table.listed.get(provider, {}).items():
            card = table.cards.get(f"{found}##")
            while card is not None and at_ns < card.get("f", at_ns):
                card = table.cards[card["b"]]
            if card is None or "g" in card:
                continue
            rates: dict[str, object] = {
                meter: card[key] for meter, key in METERS.items() if key not in card.get("x", {})
            }
            yield f"{alias}/{name}", {**rates, "source": card["s"]}
