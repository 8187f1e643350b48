"""Draw every dashboard over a month of the simulated fleet, for docs/img: `python -m tests.grafana.pictures DRAW`.

DRAW is a program that is called with a dashboard's JSON, a Prometheus' URL, a file for the PNG, its width and height in
pixels, and `theme=dark&to=TIME` (unix seconds). Prometheus must be on the PATH, and Pillow installed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from PIL import Image

from costspan.demo import month
from costspan.demo.fleet import DAY, Fleet, Story
from costspan.demo.live import quiet
from costspan.grafana.export import shipped
from tests.grafana.dashboards import BOARDS, Board

IMAGES: Final = Path(__file__).parents[2] / "docs" / "img"
WIDTH: Final = 1620
_ROW: Final = 38
_HEAD: Final = 80

CHOSEN: Final = {"whatif": "gpt-5.4-mini"}
"""Values of variables that have no All."""


def month_long(board: Board) -> str:
    """The dashboard as JSON, over thirty days."""
    document = json.loads(json.dumps(board.document))
    document["time"]["from"] = "now-30d"
    text = json.dumps(document)
    for name, value in CHOSEN.items():
        text = text.replace(f"${name}", value)
    return text


def height(board: Board) -> int:
    """Pixels."""
    rows: int = max(entry["gridPos"]["y"] + entry["gridPos"]["h"] for entry in board.document["panels"])
    return _HEAD + rows * _ROW


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.grafana.pictures", description=__doc__)
    parser.add_argument("draw", metavar="DRAW", help="the program that draws a dashboard")
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    parser.add_argument("--into", type=Path, default=IMAGES, metavar="DIR")
    arguments = parser.parse_args()
    end = int(time.time()) // 240 * 240
    fleet = Fleet(Story((end - 30 * DAY) // 1200 * 1200, end))
    with quiet(), tempfile.TemporaryDirectory() as folder, month.Prometheus(Path(folder) / "data") as prometheus:
        month.make(fleet, month.grid(fleet.story.start, end), prometheus, month.rules(shipped()), _progress)
        for board in BOARDS:
            dashboard = Path(folder) / f"{board.name}.json"
            dashboard.write_text(month_long(board), encoding="utf-8")
            picture = arguments.into / f"{board.name}.png"
            size = (str(WIDTH), str(height(board)))
            asked = f"theme={arguments.theme}&to={end}"
            subprocess.run([arguments.draw, str(dashboard), prometheus.url, str(picture), *size, asked], check=True)
            # 256 colours are enough, and a third of the bytes.
            Image.open(picture).convert("RGB").quantize(256).save(picture, optimize=True)
            print(picture)


def _progress(share: float) -> None:
    print(f"\r{share:4.0%} of the month", end="\n" if share >= 1 else "", flush=True)


if __name__ == "__main__":
    main()
