"""`costspan serve`: the HTTP API over a ledger, and its page; and the keys that it takes."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from costspan.commands import fail

if TYPE_CHECKING:
    from costspan.insight.serve.keys import Key, Keys

app = typer.Typer(
    help="The HTTP API over a ledger, and its page.",
    rich_markup_mode=None,
)
keys_app = typer.Typer(help="The keys that the API takes.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(keys_app, name="keys")

_fail: Final = partial(fail, "costspan serve")

KeysFile = Annotated[
    Path | None,
    typer.Option(
        "--keys",
        metavar="FILE",
        envvar="COSTSPAN_API_KEYS_FILE",
        help="The file of keys (hashed); by default `costspan/api-keys.json` in the user's data folder.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    ledger: Annotated[
        str,
        typer.Option(metavar="URL", envvar="COSTSPAN_LEDGER", help="A file, sqlite:///file.db or postgresql://..."),
    ] = "",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = 8787,
    zone: Annotated[str, typer.Option(help="Time zone of days and months, such as Europe/Berlin.")] = "UTC",
    keys: KeysFile = None,
    pseudonymise: Annotated[
        bool, typer.Option("--pseudonymise", help="Show users as keyed hashes (COSTSPAN_USER_KEY), always.")
    ] = False,
    rate: Annotated[int, typer.Option(min=1, max=1_000_000, help="Requests that a key may make in a minute.")] = 600,
    tls_certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM file with which to speak TLS.", show_default=False)
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key.", show_default=False)] = None,
) -> None:
    """Serve the HTTP API and its page, until SIGTERM or Ctrl-C.

    Every request needs a key: `costspan serve keys add NAME` makes one, and COSTSPAN_API_KEYS has them as
    NAME:SCOPE:KEY. Where there is none yet, a key that holds until the end is printed; on an address that others can
    reach, the server refuses to begin.
    """
    if context.invoked_subcommand is not None:
        return
    try:
        import uvicorn

        from costspan.insight.serve import app as application
        from costspan.insight.serve.keys import Keys, of_environment
        from costspan_processor.ledger.store import LedgerError
    except ImportError as error:
        hint = "" if "costspan[serve]" in str(error) else ": pip install 'costspan[serve]'"
        _fail(f"{error}{hint}")
    if (tls_certificate is None) != (tls_key is None):
        _fail("--tls-certificate and --tls-key go together")
    if not ledger:
        _fail("there is no ledger to show: give --ledger URL, or set COSTSPAN_LEDGER")
    try:
        known = Keys(of_environment(), _file(keys))
        secret = "" if known else _first(host)
        if secret:
            known = Keys((_only(secret),), _file(keys))
        served = application(ledger, keys=known, zone=zone, pseudonymise=pseudonymise, rate=rate)
    except (ValueError, ImportError, LedgerError) as error:
        _fail(error)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                _announce(host, port, tls_key is not None, known, secret)

    config = uvicorn.Config(
        served,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,  # the audit log has more
        server_header=False,
        proxy_headers=False,  # who asks is told by the key
        timeout_graceful_shutdown=10,
        limit_concurrency=1000,
        ssl_certfile=tls_certificate,
        ssl_keyfile=tls_key,
    )
    server = Server(config)
    # Whoever runs a server sees what goes wrong in it.
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    # uvicorn sends itself the signal once more when it is done: what is in hand is finished, and that is success.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    try:
        server.run()
    except (OSError, ValueError) as error:
        _fail(error)
    if not server.started:
        sys.exit(1)


def _file(given: Path | None) -> Path:
    """Where the keys are kept."""
    if given is not None:
        return given.expanduser()
    from costspan.book import folder
    from costspan.settings import load

    return folder(load({})).parent / "api-keys.json"


def _only(secret: str) -> Key:
    from costspan.insight.serve.keys import key_of

    return key_of("this-session", "write", secret)


def _first(host: str) -> str:
    """A key for whoever has none yet, of this machine alone."""
    from costspan.insight.serve.keys import new_secret

    if not _is_loopback(host):
        _fail(
            f"--host {host} lets others in, and there is no key to tell them apart: "
            "make one with `costspan serve keys add NAME`, or set COSTSPAN_API_KEYS"
        )
    return new_secret()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _announce(host: str, port: int, tls: bool, known: Keys, secret: str) -> None:
    shown = f"[{host}]" if ":" in host else host
    address = f"http{'s' if tls else ''}://{shown}:{port}/"
    if secret:
        print(f"costspan serve: {address}#key={secret}")
        print("The key in it holds until the server ends; `costspan serve keys add NAME` makes one that stays.")
    else:
        print(f"costspan serve: {address} (keys: {', '.join(known.names)})")
    if not tls and not _is_loopback(host):
        print("costspan serve: keys travel in the clear: give --tls-certificate, or put a proxy with TLS before it")
    sys.stdout.flush()


@keys_app.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who it is for; the audit log has it.")],
    scope: Annotated[str, typer.Option(help="read, or write: change budgets and acknowledge, too.")] = "read",
    keys: KeysFile = None,
) -> None:
    """Make a key and print it, once: the file keeps its hash. A server that runs knows it within a second."""
    try:
        from costspan.insight.serve.keys import add_key

        path = _file(keys)
        secret = add_key(path, name, scope)
    except (ValueError, ImportError) as error:
        fail("costspan serve keys add", error)
    print(secret)
    print(f"{path}: key {name!r} may {scope}; it is not shown again", file=sys.stderr)


@keys_app.command("list")
def list_(keys: KeysFile = None, as_json: Json = False) -> None:
    """The names of the keys, and what they may."""
    try:
        from costspan.insight.serve.keys import of_environment, read_keys

        path = _file(keys)
        found = [(key, str(path)) for key in read_keys(path)]
        found += [(key, "COSTSPAN_API_KEYS") for key in of_environment()]
    except (ValueError, ImportError) as error:
        fail("costspan serve keys list", error)
    from costspan.rates import print_json, show, table

    if as_json:
        print_json(
            [{"name": key.name, "scope": key.scope, "made": key.made or None, "from": where} for key, where in found]
        )
    elif found:
        rows = [(key.name, key.scope, key.made or "", where) for key, where in found]
        show([table(("Name", "May", "Made", "From"), rows, left=(0, 1, 2, 3))])
    else:
        print(f"there is no key in {path}: `costspan serve keys add NAME` makes one", file=sys.stderr)


@keys_app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The key's name.")], keys: KeysFile = None
) -> None:  # fmt: skip
    """Forget a key. A server that runs refuses it within a second."""
    try:
        from costspan.insight.serve.keys import remove_key

        path = _file(keys)
        remove_key(path, name)
    except (ValueError, ImportError) as error:
        fail("costspan serve keys remove", error)
    print(f"{path}: key {name!r} is removed")
