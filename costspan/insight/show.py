"""A report as Markdown, JSON, CSV or HTML. Amounts in JSON and CSV are exact decimal text, elsewhere as people read."""

from __future__ import annotations

import csv
import io
import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from costspan.rates import decimal_text
from costspan.render import format_share, format_tokens, format_usd

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jinja2 import Environment

Format = Literal["markdown", "json", "csv", "html"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

_TITLES: Final = {
    "by_provider": "By provider",
    "by_model": "By model",
    "by_operation": "By operation",
    "by_task": "By task",
    "by_feature": "By feature",
    "by_team": "By team",
    "by_persona": "By persona",
    "by_service": "By service",
    "by_user": "By user",
}
_MARKUP: Final = re.compile(r"[\\|\[\]<>*`]")
"""What would be more than itself in a cell of Markdown: names come from whoever calls."""
_CSV: Final = (
    "section", "name", "calls", "cost_usd", "share", "input_tokens", "output_tokens", "cache_read_tokens", "saved_usd",
    "unpriced", "failed", "aborted", "latency_s",
)  # fmt: skip


def write(report: Mapping[str, Any], form: Format) -> str:
    """The report as text of a form."""
    if form == "json":
        return to_json(report)
    if form == "csv":
        return _csv(report)
    template = _templates().get_template(f"report.{'md' if form == 'markdown' else 'html'}")
    return template.render(report=report, title=_title(report), breakdowns=_breakdowns(report), bars=_bars(report))


def to_json(value: Any) -> str:
    r"""JSON; amounts are decimal text without exponent.

    >>> to_json({"cost": Decimal("1E-7")})
    '{\n  "cost": "0.0000001"\n}'
    """
    return json.dumps(value, indent=2, default=_plain, ensure_ascii=False)


def _plain(value: object) -> str:
    if not isinstance(value, Decimal):
        raise TypeError(f"{value!r} has no place in a report")
    return decimal_text(value)


def _title(report: Mapping[str, Any]) -> str:
    subject = report["subject"]
    what = f"{report['report'].capitalize()} {subject}" if subject else f"The {report['report']}"
    return f"{what}, {report['period']['id']}" if report["period"]["id"] != "all" else what


def _breakdowns(report: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(title, report[key]) for key, title in _TITLES.items() if report.get(key)]


def _bars(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The hours or days of a report: what to call each, its cost, and how high it is beside the highest."""
    points = report.get("by_hour") or report.get("by_day") or []
    highest = max((point["cost"] for point in points), default=Decimal(0))
    return [
        {
            "name": point["start"][11:16] if "by_hour" in report else point["start"],
            "cost": point["cost"],
            "calls": point["calls"],
            "height": float(point["cost"] / highest) if highest else 0.0,
        }
        for point in points
    ]


def _csv(report: Mapping[str, Any]) -> str:
    text = io.StringIO()
    writer: csv.DictWriter[str] = csv.DictWriter(text, _CSV, restval="", lineterminator="\n")
    writer.writeheader()
    for line in _lines(report):
        writer.writerow({key: "" if value is None else value for key, value in line.items()})
    return text.getvalue()


def _lines(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    groups = [("total", [report["summary"]])]
    groups += [(key.removeprefix("by_"), report[key]) for key in _TITLES if report.get(key)]
    for section, lines in groups:
        for line in lines:
            yield {
                "section": section,
                "name": _unformulated(line["name"]),
                "cost_usd": None if line["cost"] is None else decimal_text(line["cost"]),
                "saved_usd": decimal_text(line["saved"]),
                "latency_s": line["latency"],
                **{key: line[key] for key in _CSV if key in line and key != "name"},
            }
    for section, key in (("hour", "by_hour"), ("day", "by_day")):
        for point in report.get(key, ()):
            cost = decimal_text(point["cost"])
            yield {"section": section, "name": point["start"], "calls": point["calls"], "cost_usd": cost}


def _unformulated(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{name}" if name[:1] in {"=", "+", "-", "@", "\t", "\r"} else name


def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    found = Environment(
        loader=PackageLoader("costspan.insight"),
        undefined=StrictUndefined,
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters |= {
        "usd": format_usd,
        "amount": lambda text: format_usd(Decimal(text)),
        "tokens": format_tokens,
        "share": lambda share: format_share(None if share is None else float(share)),
        "cell": lambda text: _MARKUP.sub(r"\\\g<0>", " ".join(str(text).split())),
        "signed": lambda change: "new" if change is None else f"{change:+.0%}".replace("%", " %"),
        "seconds": lambda seconds: "—" if seconds is None else f"{seconds:.2f} s",
    }
    return found
