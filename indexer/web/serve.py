"""The verb `serve`: pages over the database, for this machine alone unless told otherwise."""

import ipaddress
import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexer.errors import ConfigError, IndexerError
from indexer.extras import how_to_install
from indexer.terminal.options import Session, chain_options, session_of
from indexer.text.console import remark

if TYPE_CHECKING:
    import uvicorn

PORT = 8420
#: how long pages that are being made may take when the server ends
GRACE_SECONDS = 3


@click.command(
    short_help="Show who is at risk as pages that update themselves.",
    epilog="\b\nExamples:\n  indexer serve\n  indexer serve --sync"
    "\n  indexer serve --bind 0.0.0.0 --host-name desk.example.org --token-file token",
)
@click.option(
    "--bind",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Listen there; beyond this machine, --token-file is required.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=PORT,
    show_default=True,
    metavar="N",
    help="Listen on this port; 0 chooses a free one.",
)
@click.option(
    "--host-name",
    "host_names",
    multiple=True,
    metavar="NAME",
    help="A name by which browsers may call this server; repeatable.",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Ask every browser for the token in FILE (0600, 32 characters or more), once.",
)
@click.option("--sync", "syncs", is_flag=True, help="Also follow the chain, as `sync --follow` does.")
@chain_options
@session_of
def serve(
    session: Session,
    /,
    bind: str,
    port: int,
    host_names: Sequence[str],
    token_file: Path | None,
    syncs: bool,
    **flags: Any,
) -> None:
    """Show who is at risk as pages that update themselves; they read the database and change nothing.

    Needs the extra `web`. Whoever may open them sees watched wallets, labels and alerts. Run `sync --follow` beside it,
    or give --sync.
    """
    try:
        from indexer.web.app import application
        from indexer.web.desk import Desk
        from indexer.web.events import Bell
    except ModuleNotFoundError as error:
        raise IndexerError(f"{error.name} is missing: {how_to_install('web')}") from error
    from indexer.web.guard import LOOPBACK, token_of

    if not syncs and any(
        flags[name] for name in ("rpc_urls", "max_requests_per_second", "chain", "protocols", "deployments")
    ):
        raise click.UsageError(
            "--chain, --protocol, --deployment, --rpc-url and --max-requests-per-second are for --sync"
        )
    if syncs:
        session.require_one_file("serve --sync")
    local = is_loopback(bind)
    if not local and token_file is None:
        raise click.UsageError(f"--bind {bind} lets others in: give --token-file, which says by which token")
    token = None if token_file is None else token_of(token_file)
    hosts = [*LOOPBACK, *host_names, *([] if is_any(bind) else [f"[{bind}]" if ":" in bind else bind])]
    desk = Desk(session)
    with listening(bind, port) as listener:
        bell = Bell(desk)
        server = server_of(application(desk, hosts, token, bell=bell))
        bell.ending = lambda: server.should_exit
        with suppress(KeyboardInterrupt):
            say_where(bind, listener.getsockname()[1], host_names, local=local, token=token is not None)
            if syncs:
                with beside(server, listener):
                    follow(flags)
            else:
                server.run(sockets=[listener])
        remark("Stopped serving.")


def is_loopback(bind: str) -> bool:
    """Whether only this machine reaches the address. Raises `ConfigError` for what is none."""
    try:
        return bind == "localhost" or ipaddress.ip_address(bind).is_loopback
    except ValueError as error:
        raise ConfigError(
            f"--bind {bind!r} is no address: 127.0.0.1, ::1, 0.0.0.0 or one of this machine's own"
        ) from error


def is_any(bind: str) -> bool:
    return bind != "localhost" and ipaddress.ip_address(bind).is_unspecified


@contextmanager
def listening(bind: str, port: int) -> Iterator[socket.socket]:
    """The socket of the server. Raises `IndexerError` where it cannot be had."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((bind, port))
            listener.listen(128)
        except OSError as error:
            raise IndexerError(
                f"cannot listen on {bind} port {port} ({error.strerror}): choose another with --port"
            ) from error
        yield listener


def server_of(app: Any) -> "uvicorn.Server":
    """A server that logs no request, as an address may hold a token, and ends with its clients."""
    import uvicorn

    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            ws="none",
            http="h11",  # it bounds what a request line and headers may take; others do not
        )
    )


def say_where(bind: str, port: int, names: Sequence[str], *, local: bool, token: bool) -> None:
    host = names[0] if names else "127.0.0.1" if is_any(bind) else f"[{bind}]" if ":" in bind else bind
    remark(f"Open http://{host}:{port}/{'?token=... with the token' if token else ''} (Ctrl-C ends it)")
    if not local:
        remark(
            "This is plain http beyond this machine: whoever is between can read pages and cookie; put a TLS proxy in front."
        )


@contextmanager
def beside(server: "uvicorn.Server", listener: socket.socket) -> Iterator[None]:
    """Runs the server in a thread, as signals go to the main one, which syncs."""
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="serve", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(GRACE_SECONDS + 2)


def follow(flags: dict[str, Any]) -> None:
    """What `sync --follow` does, until interrupted."""
    from indexer.jobs.sync import sync

    context = click.get_current_context()
    given: list[str] = ["--follow"]
    for name, flag in (("chain", "--chain"), ("max_requests_per_second", "--max-requests-per-second")):
        given += [flag, str(flags[name])] if flags[name] is not None else []
    for name, flag in (("protocols", "--protocol"), ("deployments", "--deployment"), ("rpc_urls", "--rpc-url")):
        given += [part for value in flags[name] for part in (flag, value)]
    given += ["--spread"] if flags["spread"] else []
    with sync.make_context("sync", given, parent=context.parent) as inner:
        sync.invoke(inner)
