"""What a provider's own cost API says, through its own SDK and with the user's admin key."""

from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from costspan.insight.reconcile.invoices import Charge, Invoice, InvoiceError, amount, day, refuse_currency

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OPENAI_KEY: Final = "OPENAI_ADMIN_KEY"
ANTHROPIC_KEY: Final = "ANTHROPIC_ADMIN_API_KEY"

_CENTS: Final = 100


def openai_costs(first: date, last: date) -> Invoice:
    """What OpenAI says that these days cost, by line item. Raises `InvoiceError`."""
    key = _key(OPENAI_KEY, "OpenAI", "https://platform.openai.com/settings/organization/admin-keys")
    try:
        import openai
    except ImportError:
        raise InvoiceError("--openai asks with OpenAI's own SDK: pip install openai") from None
    client = openai.OpenAI(admin_api_key=key, api_key=os.environ.get("OPENAI_API_KEY") or key)
    costs = _method(client, "admin.organization.usage.with_raw_response.costs", f"openai {openai.__version__}")
    invoice = Invoice("OpenAI", "OpenAI cost API")
    start, end = (int(_midnight(at).timestamp()) for at in (first, last + timedelta(days=1)))
    asked: dict[str, Any] = {"start_time": start, "end_time": end, "bucket_width": "1d", "limit": 180}
    asked["group_by"] = ["line_item"]
    while True:
        # As it was sent: the SDK would make floats of the amounts.
        page = json.loads(_asked("OpenAI", openai.OpenAIError, costs, asked).text, parse_float=Decimal)
        for bucket in page["data"]:
            at = day(str(bucket["start_time"]))
            for result in bucket["results"]:
                cost = result.get("amount") or {}
                if cost.get("value") is not None:
                    refuse_currency(cost.get("currency") or "usd")
                    charge = Charge(at, at, "openai", result.get("line_item") or "", "usage")
                    invoice.add(charge, amount(str(cost["value"])))
        if not page.get("has_more") or not page.get("next_page"):
            return invoice
        asked["page"] = page["next_page"]


def anthropic_costs(first: date, last: date) -> Invoice:
    """What Anthropic says that these days (31 at most) cost, by model. Raises `InvoiceError`."""
    key = _key(ANTHROPIC_KEY, "Anthropic", "https://platform.claude.com/settings/admin-keys")
    try:
        import anthropic
    except ImportError:
        raise InvoiceError("--anthropic asks with Anthropic's own SDK: pip install anthropic") from None
    client = anthropic.Anthropic(api_key=key)
    costs = _method(client, "beta.organization.analytics.cost.list", f"anthropic {anthropic.__version__}")
    invoice = Invoice("Anthropic", "Anthropic cost API")
    asked: dict[str, Any] = {
        "starting_at": _midnight(first).isoformat(),
        "ending_at": _midnight(last + timedelta(days=1)).isoformat(),
        "time_bucket_width": "1d",
        "group_by": ["model", "cost_type"],
        "order_by": "time",
        "limit": 1000,
    }
    page = _asked("Anthropic", anthropic.AnthropicError, costs, asked)
    while True:
        for item in page.data:
            refuse_currency(item.cost.currency)
            at = item.starting_at.astimezone(UTC).date()
            kind = item.group.cost_type
            name = item.group.model if kind in {None, "tokens"} else kind
            # In cents, with as many decimals as there are.
            invoice.add(Charge(at, at, "anthropic", name or "", "usage"), amount(item.cost.amount) / _CENTS)
        if not page.has_next_page():
            return invoice
        page = _asked("Anthropic", anthropic.AnthropicError, page.get_next_page, {})


def _key(variable: str, provider: str, where: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InvoiceError(f"{provider} tells its costs to admin keys alone: put one ({where}) into {variable}")
    return key


def _method(client: object, path: str, version: str) -> Callable[..., Any]:
    found: Any = client
    for name in path.split("."):
        found = getattr(found, name, None)
        if found is None:
            raise InvoiceError(f"{version} has no cost API: update it")
    method: Callable[..., Any] = found
    return method


def _asked(provider: str, errors: type[Exception], method: Callable[..., Any], asked: Mapping[str, Any]) -> Any:
    try:
        return method(**asked)
    except errors as error:
        said = " ".join(str(error).split())[:300]
        raise InvoiceError(f"{provider} does not tell its costs: {said}") from None


def _midnight(at: date) -> datetime:
    return datetime.combine(at, time(), UTC)
