"""Events to people: Slack, e-mail, Teams, webhooks and whatever else Apprise can reach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from costspan_processor.budgets.events import Event, Severity

_KIND: Final[dict[Severity, str]] = {"info": "info", "warning": "warning", "critical": "failure"}
"""Apprise's word for a severity."""


def notifier(urls: Sequence[str]) -> Callable[[Event], None]:
    """Sends an event to all of these Apprise URLs.

    Raises ImportError without the extra `costspan[notify]`, ValueError for a URL that Apprise does not know; neither
    says more of a URL than its scheme, since there are tokens in the rest.
    """
    try:
        import apprise
    except ImportError:
        raise ImportError('events are sent by Apprise: pip install "costspan[notify]"') from None
    service = apprise.Apprise()
    for url in urls:
        if not service.add(url):
            scheme = url.partition("://")[0] if "://" in url else "one without a scheme"
            raise ValueError(f"Apprise does not understand a notification URL ({scheme}): see its list of services")

    def send(event: Event) -> None:
        title = f"{event.severity}: budget {event.budget!r}"
        if not service.notify(body=event.message, title=title, notify_type=apprise.NotifyType(_KIND[event.severity])):
            raise ConnectionError("an event of a budget did not reach everybody that it was sent to")

    return send
