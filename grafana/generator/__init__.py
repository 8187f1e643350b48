"""Writes the dashboards: `python -m grafana.generator`. Their JSON is committed; a test holds the two together.

Development only: needs grafana-foundation-sdk, which costspan itself never imports.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from grafana.generator import allocation, budgets, efficiency, health, models, overview

DASHBOARDS: Final = Path(__file__).parents[1] / "dashboards"

_PAGES: Final = (overview, budgets, models, allocation, efficiency, health)


def rendered() -> dict[str, str]:
    """Every dashboard as the text of its file, by the file's name."""
    documents: list[dict[str, Any]] = [page.dashboard() for page in _PAGES]
    return {
        f"{document['uid'].removeprefix('costspan-')}.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        for document in documents
    }
