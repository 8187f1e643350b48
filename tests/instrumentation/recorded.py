"""Recorded exchanges between SDKs and providers, for tests; none where `COSTSPAN_EXCHANGES` names no folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

_BESIDE = Path(__file__).parents[3] / "shared" / "recorded" / "exchanges"


def exchanges(*apis: str) -> list[dict[str, Any]]:
    """The recorded exchanges of these APIs (`anthropic.messages`), in the order of their ids."""
    folders = [Path(folder) for folder in os.environ.get("COSTSPAN_EXCHANGES", "").split(os.pathsep) if folder]
    entries = [
        (folder, json.loads(line))
        for folder in folders or [_BESIDE]
        if (folder / "index.jsonl").exists()
        for line in (folder / "index.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    files = sorted(folder / f"{entry['id']}.json" for folder, entry in entries if entry["api"] in apis)
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def events(body: str) -> list[dict[str, Any]]:
    """The JSON of each whole server event in a recorded stream; half an event at a cut is left out."""
    lines = [line.removeprefix("data:").strip() for line in body.splitlines() if line.startswith("data:")]
    whole = []
    for line in lines:
        try:
            whole.append(json.loads(line))
        except ValueError:
            continue
    return whole
