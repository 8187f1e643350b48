"""The HTTP API over a ledger, and its page: an ASGI application that runs alone or mounted in another.

    from costspan.insight.serve import app

    outer.mount("/cost", app("sqlite:///ledger.db"))

Needs the extra `serve`. `costspan serve` runs it with uvicorn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from costspan.insight.serve.api import app

__all__ = ["app"]


def __getattr__(name: str) -> Any:
    # Who only makes a key needs no web framework.
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from costspan.insight.serve.api import app
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: pip install 'costspan[serve]'", name=error.name) from None
    return app
