"""The command `costspan doctor`."""

from __future__ import annotations

from typing import Annotated

import typer


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
    import os
    import sys

    from costspan.doctor.report import examine
    from costspan.run import RunError

    try:
        report = examine(command or (), aside=as_json)
    except RunError as error:
        print(f"costspan doctor: {error}", file=sys.stderr)
        raise typer.Exit(error.status) from None
    try:
        if as_json:
            print(json.dumps(report.plain(), ensure_ascii=False, indent=1))
        else:
            from costspan.doctor.view import show

            show(report)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has enough. Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(128 + 13) from None
    raise typer.Exit(1 if report.status == "faults" else 0)
