"""Limits on spending that hold: an estimate is reserved before the call, the actual settled after it.

`Budget` says what holds, `Guard` asks and settles, a `Store` keeps the money: in memory, in a file, on a server.
"""

from __future__ import annotations

from costspan_processor.budgets.events import Event
from costspan_processor.budgets.guard import Check, Guard
from costspan_processor.budgets.model import Budget, BudgetExceeded
from costspan_processor.budgets.store import Store, StoreError

__all__ = ["Budget", "BudgetExceeded", "Check", "Event", "Guard", "Store", "StoreError"]
