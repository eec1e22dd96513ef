"""The command `indexer`: one function a verb, no logic."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexer.cli.options import (
    Number,
    Session,
    Verbs,
    block_name,
    chain_options,
    connected,
    holds,
    interruptible,
    row_filters,
    session_of,
    wallet_address,
)
from indexer.cli.output import Output, output_options
from indexer.cli.report import report, top
from indexer.cli.simulate import movements, simulate
from indexer.cli.watch import watch
from indexer.config import DEFAULT_CHAIN
from indexer.console import bars, counted, log_to_stderr, remark
from indexer.errors import IndexerError
from indexer.model import Accounts
from indexer.store import exports as exporting
from indexer.store import queries as reading
from indexer.store.database import open_readonly
from indexer.store.exports import Kind
from indexer.store.rows import BALANCE_COLUMNS, POSITION_COLUMNS, balance_row
from indexer.store.store import Store
from indexer.text import age, for_people
from indexer.units import AT_RISK_BELOW

if TYPE_CHECKING:
    from indexer.sync.live import LivePosition
    from indexer.sync.sync import Outcome, Sync


@click.group(
    cls=Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  indexer sync && indexer at-risk",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Configuration  [default: ./indexer.toml, else the user's config folder]",
)
@click.option(
    "--db",
    type=click.Path(path_type=Path),
    metavar="FILE",
    default=Path("indexer.db"),
    show_default=True,
    help="The SQLite database.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Log lines.")
@click.option("-v", "--verbose", count=True, help="Say more; twice for everything.")
@click.version_option(package_name="lending-indexer", message="%(version)s")
@click.pass_context
def main(ctx: click.Context, config_path: Path | None, db: Path, log_format: str, verbose: int) -> None:
    """Exact health factors of every wallet on Aave, Compound and Maker, in one SQLite file."""
    for stream in (sys.stdout, sys.stderr):
        # A symbol that the terminal's encoding lacks is spelt out instead of ending the command.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    log_to_stderr(as_json=log_format == "json", verbose=verbose)
    ctx.obj = Session(config_path, db)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@main.command(
    epilog="\b\nExamples:\n  indexer sync\n  indexer sync --rpc-url http://127.0.0.1:8545 --protocol aave-v3\n  indexer sync --dry-run"
)
@chain_options
@click.option(
    "--accounts",
    type=click.Choice([Accounts.BORROWERS.value, Accounts.ALL.value]),
    default=Accounts.BORROWERS.value,
    show_default=True,
    help="Who is found: those who can be liquidated, or everyone.",
)
@click.option("--to", default="latest", show_default=True, callback=block_name, metavar="BLOCK", help="Target block.")
@click.option("--follow", is_flag=True, help="Go on, block by block, until interrupted.")
@click.option("--dry-run", is_flag=True, help="Print what would be asked for, and do nothing.")
@output_options
@session_of
def sync(
    session: Session, /, accounts: str, to: str, follow: bool, dry_run: bool, output: Output, **flags: Any
) -> None:
    """Bring the database to a block of the chain."""
    if follow and to.isdecimal():
        raise click.UsageError(f"--follow needs a block that moves on, such as latest or latest:-64, not {to}")
    if dry_run:
        from indexer.sync.dry_run import expected  # noqa: PLC0415 - see connected()

        with connected(session, flags) as (chain, adapters):
            plan = expected(session.db, chain, adapters, Accounts(accounts), to)
        output.write_dicts(plan, list(plan[0]))
        remark(f"{sum(row['log_requests'] for row in plan):,} requests for logs are expected; nothing was changed")
        return
    if follow:
        chain_id = session.config.select(flags["chain"], flags["protocols"], flags["deployments"])[0].chain_id
        with interruptible() as interrupted:
            with suppress(KeyboardInterrupt), syncing(session, flags, accounts) as worker:
                tail(session, flags, worker, to, interrupted)
            remark(stopped(reading.last_block(session.db, chain_id)))
        return
    with syncing(session, flags, accounts) as worker:
        started = time.monotonic()
        outcome = worker.snapshot(to)
        remark(told(worker, outcome, time.time() - outcome.block.timestamp))
        remark(f"{time.monotonic() - started:.1f} s")
        if outcome.failed:
            raise IndexerError(
                f"{len(outcome.failed)} of {len(worker.adapters)} deployments stayed behind: {', '.join(outcome.failed)}; "
                "`indexer status` says why"
            )


@contextmanager
def syncing(session: Session, flags: Mapping[str, Any], accounts: str) -> Iterator["Sync"]:
    """Connected, with the database open and locked."""
    from indexer.chain.connect import require_contracts  # noqa: PLC0415 - see connected()
    from indexer.sync.sync import Sync  # noqa: PLC0415

    with connected(session, flags) as (chain, adapters):
        require_contracts(chain, adapters, reading.known_deployments(session.db))
        with Store(session.db) as store, store.lock(), bars() as progress:
            yield Sync(store, chain, adapters, Accounts(accounts), session.config.settings, progress)


def tail(session: Session, flags: Mapping[str, Any], worker: "Sync", to: str, interrupted: Callable[[], bool]) -> None:
    """Snapshots of every new block until interrupted."""
    from indexer.chain.heads import Heads  # noqa: PLC0415 - see connected()
    from indexer.sync.follow import follow  # noqa: PLC0415 - see connected()

    config = session.config
    endpoints = config.endpoints(config.chain(worker.chain.name), flags["rpc_urls"])
    with closing(Heads([endpoint.url for endpoint in endpoints])) as heads:
        follow(worker, heads, lambda outcome, lag: remark(told(worker, outcome, lag)), to=to, until=interrupted)


def told(worker: "Sync", outcome: "Outcome", lag: float) -> str:
    """One line on a snapshot."""
    return (
        f"{worker.chain.name} block {outcome.block.number}: {outcome.positions:,} positions, {outcome.at_risk:,} wallets "
        f"at risk; {outcome.logs:,} logs, {outcome.read:,} read, {outcome.requests:,} requests, {age(lag)} old"
    )


def stopped(block: int | None) -> str:
    """What an interrupted `sync --follow` says."""
    if block is None:
        return "Stopped before the first snapshot. What was saved stays; the same command goes on from there."
    return f"Stopped. The last snapshot is of block {block}; the same command goes on from there."


STATUS_TABLE = "chain deployment state block_number age positions at_risk requests note".split()


@main.command(epilog="\b\nExample:\n  indexer status")
@output_options
@session_of
def status(session: Session, output: Output) -> None:
    """Tell how far each deployment is synced."""
    with session.read() as conn:
        rows = reading.status(conn, session.config.chain_name, time.time())
    if output.table:
        rows = [{**row, "age": age(row["age_seconds"])} for row in rows]
    output.write_dicts(rows, STATUS_TABLE, reading.STATUS_COLUMNS)


@main.command(epilog="\b\nExample:\n  indexer protocols --chain mainnet")
@click.option("--chain", metavar="NAME", help="Only this chain.")
@output_options
@session_of
def protocols(session: Session, chain: str | None, output: Output) -> None:
    """List the deployments that are known, with their addresses and start blocks."""
    config = session.config
    if chain is not None:
        config.chain(chain)
    rows = [
        (found.chain, found.name, found.protocol, found.start_block, dict(found.addresses))
        for found in config.deployments.values()
        if chain in (None, found.chain)
    ]
    output.write(["chain", "deployment", "protocol", "start_block", "addresses"], rows)


AT_RISK_TABLE = "deployment position_group wallet health_factor debt_usd collateral_usd status blocked_by".split()


@main.command(
    "at-risk", epilog="\b\nExamples:\n  indexer at-risk --min-debt 1000\n  indexer at-risk --below 1.02 --json"
)
@row_filters
@click.option("--exit-code", is_flag=True, help="Exit with 3 if there is any, with 1 if nothing is synced.")
@output_options
@session_of
def at_risk(
    session: Session,
    below: float | None,
    min_debt: float | None,
    protocols: Sequence[str],
    exit_code: bool,
    output: Output,
) -> None:
    """List who is at risk of liquidation, the largest debt first.

    Without --below that is who can be liquidated now and who has a health factor below 1.1 (at_risk_below in the
    configuration, when it was synced).
    """
    with session.read() as conn:
        synced = holds(session, conn, protocols=protocols)
        with bars() as progress:
            progress.start("positions", 1, "query")
            columns, found = exporting.select(conn, Kind.AT_RISK, below=below, min_debt=min_debt, protocols=protocols)
            rows = [dict(zip(columns, row, strict=True)) for row in found]
        hidden = 0
        for state, count, lower in reading.unlisted(conn, AT_RISK_BELOW, protocols):
            known = f", {lower:,} of them below {AT_RISK_BELOW}: --below {AT_RISK_BELOW} lists them" if lower else ""
            remark(f"{count:,} positions are {state}{known}; `indexer status` and their rows say why")
            hidden += lower
        for row in reading.status(conn, str, time.time()):
            if row["state"] not in {"ok", "new"}:
                remark(f"{row['deployment']} is {row['state']}: {row['note']}")
    output.write_dicts(rows, AT_RISK_TABLE, columns)
    if exit_code and not synced:
        raise SystemExit(1)  # nobody can tell
    if exit_code and (rows or (hidden and below is None)):
        raise SystemExit(3)


SHOW_TABLE = (
    "deployment position_group account owner_via status health_factor collateral_usd debt_usd net_usd "
    "liquidation_by_interest block_number"
).split()
SHOW_BALANCES = "deployment position_group account side symbol amount value_usd is_collateral".split()


@main.command(
    epilog="\b\nExamples:\n  indexer show 0x47ac0fb4f2d84898e4d9e7b4dab3c24507a6d503\n  indexer show --live 0x47ac0fb4f2d84898e4d9e7b4dab3c24507a6d503\n  indexer show --target 2 0x47ac0fb4f2d84898e4d9e7b4dab3c24507a6d503"
)
@click.argument("wallet", callback=wallet_address)
@click.option("--live", is_flag=True, help="Read it from the chain now, without the database.")
@click.option(
    "--target",
    type=Number(min=1, max=1000),
    default=1.5,
    show_default=True,
    metavar="HF",
    help="The health factor to which the amounts to repay or add lead.",
)
@chain_options
@output_options
@session_of
def show(session: Session, /, wallet: str, live: bool, target: float, output: Output, **flags: Any) -> None:
    """Show one wallet: its positions, those it holds through a proxy too, their balances, and what liquidates them.

    That is the price of each asset at which it happens, the others as they are, and how far away it is; the time that
    interest alone takes at today's rates; what to repay or to add to reach a target; what one call could close now.
    Values are in USD, amounts in whole tokens; JSON has the exact integers, CSV and TSV only the positions.
    """
    from indexer.cli import outlook  # noqa: PLC0415 - the adapters take a while to import
    from indexer.units import scaled  # noqa: PLC0415

    goal = scaled(target)
    if live:
        from indexer.sync.live import live as read_live  # noqa: PLC0415 - see connected()

        with connected(session, flags) as (chain, adapters):
            rows = [live_row(found, goal) for found in read_live(chain, adapters, wallet)]
        if not rows:
            remark(f"{wallet} has no position on {chain.name} now")
    else:
        with session.read() as conn:
            rows = reading.wallet(conn, wallet)
            outlooks = outlook.stored(conn, session.config.deployments, wallet, goal) if rows else {}
            if not rows and holds(session, conn):
                remark(f"{wallet} has no position in {session.db}")
        rows = [{**row, "outlook": outlooks.get(tuple(row[name] for name in outlook.KEY))} for row in rows]
    if not output.table:
        output.write_dicts(rows, SHOW_TABLE, POSITION_COLUMNS)
        return
    balances = [balance for row in rows for balance in row["balances"]]
    shown = [{**row, "liquidation_by_interest": outlook.until(row["outlook"])} for row in rows]
    output.write_sets(
        (SHOW_TABLE, for_people(SHOW_TABLE, shown)),
        (SHOW_BALANCES, for_people(SHOW_BALANCES, balances)),
        *outlook.tables(rows),
    )


def live_row(found: "LivePosition", target: int) -> dict[str, Any]:
    """A position read from the chain in the shape of `indexer.store.queries.wallet`."""
    from indexer.cli import outlook  # noqa: PLC0415
    from indexer.risk.liquidation import outlook as outlook_of  # noqa: PLC0415

    columns = dict(found.columns)
    where = [columns[name] for name in BALANCE_COLUMNS[:4]]
    rows = [balance_row(where, balance, found.usd, columns["block_number"]) for balance in found.balances]
    balances = [dict(zip(BALANCE_COLUMNS, row, strict=True)) for row in rows]
    pace = found.seconds_per_block
    ahead = outlook_of(found.adapter, found.market, found.position, target=target, seconds_per_block=pace)
    return {**columns, "balances": balances, "outlook": outlook.plain(ahead, found.market)}


@main.command(
    epilog='\b\nExample:\n  indexer query "select status, count(*), sum(debt_usd) from positions group by status"'
)
@click.argument("sql")
@output_options
@session_of
def query(session: Session, sql: str, output: Output) -> None:
    """Run one SELECT on the database; it cannot write."""
    with session.read() as conn:
        output.write(*reading.run(conn, sql))


@main.command(epilog="\b\nExamples:\n  indexer verify\n  indexer verify --all --deployment aave-v3-core")
@click.option("--all", "everyone", is_flag=True, help="Every position.")
@click.option("--at-risk", "risky", is_flag=True, help="Those at risk.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="N random ones a deployment  [default: 100]")
@chain_options
@output_options
@session_of
def verify(session: Session, /, everyone: bool, risky: bool, sample: int | None, output: Output, **flags: Any) -> None:
    """Compare the rows with the contracts' own answers at the same block; exit with 1 if any differs."""
    from indexer.sync.verify import verify as compare  # noqa: PLC0415 - see connected()

    chosen = [name for name, given in (("all", everyone), ("at-risk", risky), ("sample", sample)) if given]
    if len(chosen) > 1:
        raise click.UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other; choose one")
    with closing(open_readonly(session.db)) as conn:  # without a database there is nothing to verify, and none is made
        chain_ids = [row["chain_id"] for row in conn.execute("select distinct chain_id from deployments")]
    if not chain_ids:
        raise IndexerError(f"{session.db} holds nothing yet: run `indexer sync` first")
    if flags["chain"] is None and not flags["deployments"]:
        names = sorted(session.config.chain_name(chain_id) for chain_id in chain_ids)
        if len(names) > 1 and DEFAULT_CHAIN not in names:
            raise click.UsageError(f"{session.db} holds several chains ({', '.join(names)}); name one with --chain")
        flags["chain"] = names[0] if len(names) == 1 else None
    with connected(session, flags) as (chain, adapters), Store(session.db) as store, store.lock():
        verdicts = compare(
            store,
            chain,
            adapters,
            scope=chosen[0] if chosen else "sample",
            sample=sample or 100,
            settings=session.config.settings,
        )
    rows = [{**asdict(verdict), "block": verdict.block.number, "differ": verdict.differ} for verdict in verdicts]
    output.write_dicts(rows, ["deployment", "block", "checked", "differ"])
    for verdict in verdicts:
        for m in verdict.mismatches[:20]:
            who = f"{m.deployment} {m.account} {m.position_group}".rstrip()
            remark(f"{who}: {m.what} is {m.ours} here, {m.contract} in the contract")
    differ = sum(verdict.differ for verdict in verdicts)
    if differ:
        raise IndexerError(f"{differ:,} of {sum(verdict.checked for verdict in verdicts):,} positions differ")


@main.command(
    epilog="\b\nExamples:\n  indexer export at-risk --csv > at-risk.csv\n  indexer export positions --protocol maker --output maker.json"
)
@click.argument("what", type=click.Choice([kind.value for kind in Kind]))
@row_filters
@output_options
@session_of
def export(
    session: Session,
    what: str,
    below: float | None,
    min_debt: float | None,
    protocols: Sequence[str],
    output: Output,
) -> None:
    """Write rows with every column, with block and time (UTC), ranked by debt at risk."""
    kind = Kind(what)
    with session.read() as conn:
        holds(session, conn, protocols=protocols)
        columns, rows = exporting.select(conn, kind, below=below, min_debt=min_debt, protocols=protocols)
        if output.table or output.path or not sys.stdout.isatty():
            table = kind if kind in (Kind.BALANCES, Kind.MARKETS) else Kind.POSITIONS
            (total,) = conn.execute(f"select count(*) from {table}").fetchone()  # noqa: S608 - our own names
            rows = counted(rows, total, "rows")
        output.write(columns, rows)


main.add_command(watch)
main.add_command(simulate)
main.add_command(movements)
main.add_command(report)
main.add_command(top)

if __name__ == "__main__":
    main()
