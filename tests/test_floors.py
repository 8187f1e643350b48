"""What import-linter cannot say: which part of OpenTelemetry a floor may import, and what a start costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_instrumentation_uses_the_api_of_opentelemetry_and_never_its_sdk() -> None:
    found = [
        f"{path.name}: {name}"
        for path in (ROOT / "instrumentation").rglob("*.py")
        for name in _imports(path)
        if name.startswith("opentelemetry.sdk")
    ]
    assert found == []


def test_a_provider_is_a_table_and_readers_and_the_engine_knows_none() -> None:
    floor = ROOT / "instrumentation" / "costspan_instrumentation"
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in (floor / "providers").rglob("*.py")}
    assert len(lines) > 20
    assert [f"{path.relative_to(floor)}: {count}" for path, count in lines.items() if count > 120] == []
    assert [name for name in _imports(floor / "engine.py") if "providers" in name] == []


def test_both_floors_know_the_same_hosts() -> None:
    ours, theirs = (
        (ROOT / floor / f"costspan_{floor}" / "hosts.py").read_text(encoding="utf-8")
        for floor in ("instrumentation", "processor")
    )
    assert ours == theirs, "instrumentation/ and processor/ each have a hosts.py: change both (decision 0005)"


def test_importing_costspan_imports_no_provider_sdk_and_no_optional_part() -> None:
    heavy = [
        "openai", "anthropic", "google.genai", "redis", "grpc", "typer", "rich", "prometheus_client", "sqlalchemy",
        "alembic", "numpy", "fastapi", "jinja2", "aiohttp",
    ]  # fmt: skip
    code = f"import sys, costspan; print([name for name in {heavy!r} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


def _imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return names
