"""The committed dashboards, as what reads them needs them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import promql_parser

from tests.grafana.rules import GRAFANA

FOLDER: Final = GRAFANA / "dashboards"
MACROS: Final = {"$__rate_interval": "5m", "$__range_s": "21600", "$__range": "6h", "$__interval": "1m"}


@dataclass(frozen=True)
class Board:
    """One dashboard."""

    name: str
    """Of its file, without the ending."""
    document: dict[str, Any]

    @property
    def panels(self) -> list[dict[str, Any]]:
        """Those that show something."""
        return [panel for panel in self.document["panels"] if panel["type"] != "row"]

    @property
    def variables(self) -> list[dict[str, Any]]:
        """Those whose values are asked for."""
        return [variable for variable in self.document["templating"]["list"] if variable["type"] == "query"]

    def panel(self, title: str) -> dict[str, Any]:
        (found,) = (panel for panel in self.panels if panel["title"] == title)
        return found

    def expression(self, title: str, target: int = 0) -> str:
        found: str = self.panel(title)["targets"][target]["expr"]
        return found

    def interpolated(self, expr: str, macros: dict[str, str] = MACROS, **chosen: str) -> str:
        """The expression as Grafana sends it with every variable at All, or as `chosen`."""
        for variable in self.variables:
            name = variable["name"]
            expr = expr.replace(f"${name}", chosen.get(name) or variable.get("allValue") or ".*")
        for macro in sorted(macros, key=len, reverse=True):
            expr = expr.replace(macro, macros[macro])
        assert "$" not in expr, f"an unknown variable in {expr}"
        return expr

    def queries(self) -> list[tuple[str, dict[str, Any]]]:
        """Every query with the title of its panel."""
        return [(panel["title"], target) for panel in self.panels for target in panel["targets"]]

    def asked(self, variable: dict[str, Any]) -> tuple[str, str]:
        """The selector and the label that a variable's values come from."""
        inside = variable["query"]["query"].removeprefix("label_values(").removesuffix(")")
        selector, _, label = inside.rpartition(", ")
        return self.interpolated(selector), label


def _board(file: Path) -> Board:
    return Board(file.stem, json.loads(file.read_text(encoding="utf-8")))


BOARDS: Final = tuple(_board(file) for file in sorted(FOLDER.glob("*.json")))


def board(name: str) -> Board:
    (found,) = (one for one in BOARDS if one.name == name)
    return found


def selectors(expr: str) -> list[Any]:
    """The series that an expression asks for."""
    found: list[Any] = []
    promql_parser.walk(
        promql_parser.parse(expr),
        lambda node: (
            found.append(node.vector_selector if isinstance(node, promql_parser.MatrixSelector) else node)
            if isinstance(node, (promql_parser.VectorSelector, promql_parser.MatrixSelector))
            else None
        ),
    )
    return found
