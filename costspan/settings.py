"""What can be set, from code or from the environment; the table in `docs/configuration.md` is generated from here."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, fields, replace
from dataclasses import field as _field
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger("costspan")

GenAIMetrics = Literal["current", "next", "off"]

_WORDS: Final = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def _setting(variable: str, default: Any, meaning: str, *, secret: bool = False) -> Any:
    return _field(default=default, metadata={"variable": variable, "meaning": meaning, "secret": secret})


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a process: an argument of `costspan.init` wins over the variable, that over the default."""

    enabled: bool = _setting("COSTSPAN_ENABLED", True, "`false` makes all of costspan a no-op: nothing is patched.")
    stream_usage: bool = _setting(
        "COSTSPAN_STREAM_USAGE",
        True,
        "Ask OpenAI-style streams for their usage where the application did not, and hide the extra chunk.",
    )
    genai_metrics: GenAIMetrics = _setting(  # noqa: RUF009  a string is immutable
        "COSTSPAN_GENAI_METRICS",
        "current",
        "Generation of the conventions' client metrics: `current` (`gen_ai.client.token.usage`, ...), `next` "
        "(`gen_ai.client.inference.*`) or `off`.",
    )
    cost_attributes: bool = _setting(
        "COSTSPAN_COST_ATTRIBUTES",
        True,
        "Put the proposed `gen_ai.usage.cost.*` on spans beside our own `costspan.cost.*`.",
    )
    dimensions: tuple[str, ...] = _setting(
        "COSTSPAN_DIMENSIONS",
        ("costspan.team", "costspan.feature", "costspan.task"),
        "Attribution attributes that become metric labels, separated by commas.",
    )
    max_label_values: int = _setting(
        "COSTSPAN_MAX_LABEL_VALUES",
        200,
        "Values that one label may have; calls with further ones are counted under `_overflow`.",
    )
    baggage_sent: tuple[str, ...] = _setting(
        "COSTSPAN_BAGGAGE_SENT",
        (),
        "Names of `costspan.track()` that go out as W3C baggage with every instrumented HTTP request, those to "
        "providers too: `team,feature`.",
    )
    baggage_trusted: tuple[str, ...] = _setting(
        "COSTSPAN_BAGGAGE_TRUSTED",
        (),
        "Names that are believed when they come in as baggage: for services which only trusted ones can call.",
    )
    user_key: str = _setting(
        "COSTSPAN_USER_KEY",
        "",
        "A secret: `user.id` is then the HMAC-SHA256 of what `costspan.track(user=...)` was given.",
        secret=True,
    )
    prompt_key: str = _setting(
        "COSTSPAN_PROMPT_KEY",
        "",
        "A secret: with it, spans and ledger have keyed hashes of prompts and of their standing beginnings, for advice "
        "on caches and repeated questions. What prompts say is not kept.",
        secret=True,
    )
    config_file: str = _setting(
        "COSTSPAN_CONFIG",
        "costspan.toml",
        "The file of budgets and routing (docs/budgets.md), if it is there; it is read again when it changes.",
    )
    budgets: str = _setting(
        "COSTSPAN_BUDGETS",
        "",
        'Budgets as JSON, over those of the file: `[{"name": "all", "limit": "500", "policy": "block"}]`.',
    )
    budget_store: str = _setting(
        "COSTSPAN_BUDGET_STORE",
        "memory:",
        "Where budgets are kept: `memory:` (of the process), `sqlite:///file.db` (of a machine), "
        "`redis://host:6379/0` (of many).",
        secret=True,
    )
    ledger: str = _setting(
        "COSTSPAN_LEDGER",
        "",
        "Where a record of every call is kept (docs/ledger.md): a file, or `postgresql://host/database`; by default "
        "nowhere.",
        secret=True,
    )
    ledger_days: int = _setting(
        "COSTSPAN_LEDGER_DAYS",
        0,
        "Days after which calls leave the ledger, whose hourly totals stay; 0 keeps them.",
    )
    notify: tuple[str, ...] = _setting(
        "COSTSPAN_NOTIFY",
        (),
        "Apprise URLs that events of budgets are sent to (Slack, e-mail, Teams, webhooks), separated by commas.",
        secret=True,
    )
    price_file: str = _setting(
        "COSTSPAN_PRICE_FILE",
        "",
        "A file of own prices, discounts and fallback prices, over those of the book (docs/prices.md).",
    )
    prices: str = _setting(
        "COSTSPAN_PRICES",
        "",
        'Own prices as JSON, over those of the file: `{"openai/gpt-4.1": {"input": "1.80"}}`, USD per million.',
    )
    model_names: tuple[str, ...] = _setting(
        "COSTSPAN_MODEL_NAMES",
        (),
        "What own names of models mean, separated by commas: `azure/prod-chat=gpt-4.1`.",
    )
    price_folder: str = _setting(
        "COSTSPAN_PRICE_FOLDER",
        "",
        "Where `costspan prices update` keeps the downloaded book; by default `costspan/prices` in the user's data "
        "folder.",
    )


def load(given: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment, and over them those of `given` that are not None.

    A variable that makes no sense is named in a warning and left at its default: a typing error must not stop the
    application.

    >>> load({"genai_metrics": None}, {"COSTSPAN_STREAM_USAGE": "off"}).stream_usage
    False
    """
    environ = os.environ if environ is None else environ
    found: dict[str, Any] = {}
    for field in fields(Settings):
        text = environ.get(field.metadata["variable"], "").strip()
        if text:
            value = _read(text, field.default, field.name)
            if value is None:
                _log.warning(
                    "costspan: %s=%r is not understood; it stays %r", field.metadata["variable"], text, field.default
                )
            else:
                found[field.name] = value
    return replace(Settings(), **found, **{name: value for name, value in given.items() if value is not None})


def _read(text: str, default: Any, name: str) -> Any:
    if isinstance(default, bool):
        return _WORDS.get(text.lower())
    if isinstance(default, int):
        return int(text) if text.isdigit() and int(text) >= min(default, 1) else None
    if isinstance(default, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if name == "genai_metrics":
        return text.lower() if text.lower() in get_args(GenAIMetrics) else None
    return text


def variables() -> list[tuple[str, str, str]]:
    """Every variable with its default and meaning."""
    return [
        (field.metadata["variable"], _shown(field.default), field.metadata["meaning"]) for field in fields(Settings)
    ]


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return ",".join(default) if isinstance(default, tuple) else str(default)
