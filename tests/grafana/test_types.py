"""The dashboards against Grafana's own types: a misspelt key or an unknown mode does not pass."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tests.grafana.dashboards import BOARDS
from tests.grafana.prometheus import binary

PACKAGES: Final = {"@grafana/schema": "12.4.3", "typescript": "5.9.3"}
CACHE: Final = Path("~/.cache/costspan/grafana-types").expanduser()

HEAD: Final = Path(__file__).with_name("types.ts").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def types() -> Path:
    """A folder where Grafana's types and the compiler are installed."""
    wanted = json.dumps({"private": True, "dependencies": PACKAGES})
    CACHE.mkdir(parents=True, exist_ok=True)
    manifest = CACHE / "package.json"
    if not (CACHE / "node_modules/.bin/tsc").exists() or manifest.read_text(encoding="utf-8") != wanted:
        manifest.write_text(wanted, encoding="utf-8")
        npm = [binary("npm"), "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
        done = subprocess.run(npm, cwd=CACHE, capture_output=True, text=True, check=False)
        if done.returncode:
            manifest.unlink()
            if os.environ.get("CI") == "true":
                pytest.fail(f"Grafana's types cannot be installed: {done.stderr}")
            pytest.skip("Grafana's types cannot be installed")
    return CACHE


@pytest.fixture(scope="module")
def complaints(types: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What the compiler says of dashboards that are written into a program as they are, by their names."""

    def changed(old: str, new: str) -> Any:
        text = json.dumps(BOARDS[0].document)
        assert old in text
        return json.loads(text.replace(old, new, 1))

    documents = {board.name: board.document for board in BOARDS} | {
        "misspelt": changed('"orientation"', '"orientaton"'),
        "unknown": changed('"colorMode": "value"', '"colorMode": "x"'),
    }
    folder = types / f"check-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    for name, document in documents.items():
        (folder / f"{name}.ts").write_text(
            f"{HEAD}\nexport const board: Board = {json.dumps(document, indent=1)};", encoding="utf-8"
        )
    try:
        compiler = [
            str(types / "node_modules/.bin/tsc"), "--noEmit", "--strict", "--skipLibCheck", "--moduleResolution",
            "bundler", "--module", "esnext", "--target", "es2022", *(f"{folder.name}/{name}.ts" for name in documents),
        ]  # fmt: skip
        said = subprocess.run(compiler, cwd=types, capture_output=True, text=True, check=False).stdout.splitlines()
    finally:
        shutil.rmtree(folder)
    found = {name: [line for line in said if line.startswith(f"{folder.name}/{name}.ts")] for name in documents}
    assert sum(map(len, found.values())) == sum("error TS" in line for line in said), said
    return found


@pytest.mark.parametrize("board", [board.name for board in BOARDS])
def test_a_dashboard_is_of_grafanas_type(complaints: dict[str, list[str]], board: str) -> None:
    assert complaints[board] == []


@pytest.mark.parametrize("wrong", ["misspelt", "unknown"])
def test_what_is_not_would_be_found(complaints: dict[str, list[str]], wrong: str) -> None:
    assert complaints[wrong]
