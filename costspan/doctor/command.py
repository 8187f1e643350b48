"""The command `costspan doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from costspan.commands import fail, quiet_when_unread


def doctor(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", help="A program to run and look into: -- python app.py", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same facts as JSON.")] = False,
) -> None:
    """Find what is wrong here, and say what to do about it.

    Which SDKs are patched and who else instruments them, where spans, metrics and prices come from and go to. With a
    COMMAND also what really happened in that program. Exit status 1 if something is wrong; warnings do not count.
    """
    import json

    from costspan.doctor.report import examine
    from costspan.run import RunError

    try:
        report = examine(command or (), aside=as_json)
    except RunError as error:
        fail("costspan doctor", error, error.status)
    with quiet_when_unread():
        if as_json:
            print(json.dumps(report.plain(), ensure_ascii=False, indent=1))
        else:
            from costspan.doctor.view import show

            show(report)
    raise typer.Exit(1 if report.status == "faults" else 0)
