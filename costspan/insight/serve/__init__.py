"""The HTTP API over a ledger, and its page: an ASGI application that runs alone or mounted in another.

    from costspan.insight.serve import app

    outer.mount("/cost", app("sqlite:///ledger.db"))

Needs the extra `serve`. `costspan serve` runs it with uvicorn.
"""

from __future__ import annotations

try:
    from costspan.insight.serve.api import app
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"{error}: pip install 'costspan[serve]'", name=error.name) from None

__all__ = ["app"]
