"""A ledger in the columns of FOCUS, the FinOps Open Cost and Usage Specification, version 1.2.

One row holds what one meter of one model cost in one hour, at one rate, for one combination of service, team, feature
and the like (its tags). Rows add up to the cost of the calls, to the picodollar.

https://focus.finops.org/focus-specification/v1-2/
"""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby
from typing import IO, TYPE_CHECKING, Any, Final

from costspan_pricing import METERS
from costspan_processor.ledger.rows import PLACE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from costspan_processor.ledger.rows import Row

COLUMNS: Final = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingAccountType", "BillingCurrency",
    "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency",
    "ChargePeriodEnd", "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost",
    "ContractedUnitPrice", "EffectiveCost", "InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory",
    "PricingCurrency", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "RegionId", "RegionName",
    "ServiceCategory", "ServiceName", "ServiceSubcategory", "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId",
    "Tags",
)  # fmt: skip

_TAGS: Final = ("service", "team", "feature", "task", "persona", "agent", "operation")
_UNITS: Final = {"token": "Tokens", "character": "Characters", "second": "Seconds", "search": "Searches"}
_NOT_SAID: Final = "unknown"

_Key = tuple[Any, ...]


def write(rows: Iterable[Row], file: IO[str]) -> tuple[int, int]:
    """Write rows, which come hour by hour, as CSV; returns the rows of it, and how many calls have no figure."""
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    count = unpriced = 0
    for hour, calls in groupby(rows, key=lambda row: row[PLACE["hour"]]):
        charges: dict[_Key, tuple[Decimal, int, int]] = {}
        for row in calls:
            if row[PLACE["cost"]] is None:
                unpriced += 1
                continue
            for key, quantity, pico, listed in _charges(row):
                amount, total, by_list = charges.get(key, (Decimal(0), 0, 0))
                charges[key] = amount + quantity, total + pico, by_list + listed
        for key, charge in sorted(charges.items(), key=lambda item: str(item[0])):
            writer.writerow(_row(hour, key, *charge))
            count += 1
    return count, unpriced


def _charges(row: Row) -> Iterator[tuple[_Key, Decimal, int, int]]:
    """What a call is charged for: key, quantity, picodollars, and picodollars by the price list."""
    of = [row[PLACE[name]] for name in ("provider", "model", "tier", "geo", *_TAGS)]
    cost = row[PLACE["cost"]]
    if row[PLACE["source"]] == "provider":
        book = row[PLACE["cost_book"]]
        yield (*of, None, None, None), Decimal(1), cost, cost if book is None else book
        return
    for model, meter, quantity, rate, per, pico in json.loads(row[PLACE["lines"]] or "[]"):
        if pico is not None:
            yield (of[0], model, *of[2:], meter, rate, per), Decimal(quantity), pico, pico


def _row(hour: int, key: _Key, quantity: Decimal, pico: int, listed: int) -> list[Any]:
    provider, model, tier, geo, *tags, meter, rate, per = key
    start = datetime.fromtimestamp(hour * 3600, UTC)
    month = start.replace(day=1, hour=0)
    next_month = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
    usd, list_usd = _usd(pico), _usd(listed)
    unit = "Requests"
    priced = quantity
    if meter is not None:
        known = METERS.get(meter)
        unit = "Units" if known is None else _UNITS.get(known.unit, f"{known.unit.replace('_', ' ').title()}s")
        priced = quantity / per
    name = provider or _NOT_SAID
    sku = "/".join(part for part in (provider, model, meter or "reported") if part)
    price = "/".join(part for part in (sku, tier, geo, rate) if part)
    details = {"Tier": tier, "Geo": geo}
    said = {key: value for key, value in zip(_TAGS, tags, strict=True) if value is not None}
    values = {
        "BilledCost": usd,
        "BillingAccountId": name,
        "BillingAccountName": name,
        "BillingAccountType": "Provider",
        "BillingCurrency": "USD",
        "BillingPeriodStart": _instant(month),
        "BillingPeriodEnd": _instant(next_month),
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{model or _NOT_SAID}: {(meter or 'as the provider reported').replace('_', ' ')}",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": _instant(start),
        "ChargePeriodEnd": _instant(datetime.fromtimestamp((hour + 1) * 3600, UTC)),
        "ConsumedQuantity": _text(quantity),
        "ConsumedUnit": unit,
        "ContractedCost": usd,
        "ContractedUnitPrice": rate,
        "EffectiveCost": usd,
        "InvoiceIssuerName": name,
        "ListCost": list_usd,
        "ListUnitPrice": rate,
        "PricingCategory": "Standard",
        "PricingCurrency": "USD",
        "PricingQuantity": _text(priced),
        "PricingUnit": unit if per in {None, 1} else f"{per} {unit}",
        "ProviderName": name,
        "PublisherName": name,
        "RegionId": geo,
        "RegionName": geo,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": model or _NOT_SAID,
        "ServiceSubcategory": "Generative AI",
        "SkuId": sku,
        "SkuMeter": meter or "reported",
        "SkuPriceDetails": json.dumps({key: value for key, value in details.items() if value}) if tier or geo else None,
        "SkuPriceId": price,
        "Tags": json.dumps(said),
    }
    return [values.get(column) for column in COLUMNS]


def _usd(pico: int) -> str:
    return _text(Decimal(pico).scaleb(-12))


def _text(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _instant(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
