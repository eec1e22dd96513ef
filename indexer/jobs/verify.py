"""The verb `verify`."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from indexer.errors import IndexerError
from indexer.store.database import open_readonly
from indexer.store.shards import Shards
from indexer.terminal.options import Session, chain_options, connected, scheduler_options, session_of
from indexer.terminal.output import Output, output_options
from indexer.text.console import remark

if TYPE_CHECKING:
    from indexer.sync.verify import Verdict


@click.command(
    short_help="Compare the rows with the contracts' own answers.",
    epilog="\b\nExamples:\n  indexer verify\n  indexer verify --all --deployment aave-v3-core",
)
@click.option("--all", "everyone", is_flag=True, help="Every position.")
@click.option("--at-risk", "risky", is_flag=True, help="Positions at risk.")
@click.option(
    "--sample", type=click.IntRange(min=1), metavar="N", help="N random positions per deployment  [default: 100]"
)
@click.option("--against", metavar="URL", help="A second node, asked for the same rows at the same block.")
@chain_options
@scheduler_options
@output_options
@session_of
def verify(
    session: Session,
    /,
    everyone: bool,
    risky: bool,
    sample: int | None,
    against: str | None,
    scheduler: str | None,
    insecure_scheduler: bool,
    output: Output,
    **flags: Any,
) -> None:
    """Compare the rows with the contracts' own answers at the same block; exit with 1 if any differs.

    With --against, where two nodes contradict each other, neither is believed and the rows become unverified. Of a folder
    of files all chains are verified, or that of --chain; with --scheduler several at once.
    """
    from indexer.executors import results

    chosen = [name for name, given in (("all", everyone), ("at-risk", risky), ("sample", sample)) if given]
    if len(chosen) > 1:
        raise click.UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other; choose one")
    if scheduler is not None and not session.folder:
        raise click.UsageError("--scheduler is for a folder of files: one is verified by one process, as it is locked")
    scope = chosen[0] if chosen else "sample"
    tasks = [
        Task(
            str(session.config_path or "") or None, str(path), {**flags, "chain": chain}, scope, sample or 100, against
        )
        for path, chain in files_to_verify(session, flags, against)
    ]
    parts = results(scheduler, compared, [(task,) for task in tasks], insecure=insecure_scheduler)
    verdicts = [verdict for found, _ in parts for verdict in found]
    nodes = parts[0][1]
    write(output, verdicts, nodes)
    checked, differ, disputed = (
        sum(map(count, verdicts)) for count in (lambda v: v.checked, lambda v: v.differ, lambda v: len(v.disputed))
    )
    if disputed:
        raise IndexerError(
            f"the two nodes contradict each other about {disputed:,} of {checked:,} positions, which are now unverified; "
            "ask a third with --rpc-url, and sync from those that agree"
        )
    if differ:
        raise IndexerError(f"{differ:,} of {checked:,} positions differ")


class Task(NamedTuple):
    """One file to verify; `flags` are those of the connection, `scope` and `sample` say which rows."""

    config_path: str | None
    path: str
    flags: Mapping[str, Any]
    scope: str
    sample: int
    against: str | None


def files_to_verify(session: Session, flags: Mapping[str, Any], against: str | None) -> list[tuple[Path, str | None]]:
    """Each file with its chain; of a folder all of them, or that of --chain."""
    if not session.folder:
        return [(session.db, chain_to_verify(session, flags))]
    chosen: str | None = flags["chain"]
    if chosen is None and (against or flags["rpc_urls"] or flags["deployments"]):
        raise click.UsageError("--against, --rpc-url and --deployment are of one chain: name it with --chain")
    with session.opened() as conn:
        names = {path.stem for path in conn.paths} if isinstance(conn, Shards) else set()
    if not names:
        raise IndexerError(f"{session.db} holds nothing yet: run `indexer sync` first")
    return [(session.of_chain(name).db, name) for name in ([chosen] if chosen else sorted(names))]


def compared(task: Task) -> "tuple[list[Verdict], list[str]]":
    """The verdicts about one file, and the endpoints that were asked."""
    from indexer.store.store import Store
    from indexer.sync.verify import verify as compare

    session = Session(Path(task.config_path) if task.config_path else None, Path(task.path))
    with ExitStack() as stack:
        chain, adapters = stack.enter_context(connected(session, task.flags))
        second = None
        if task.against is not None:
            second, _ = stack.enter_context(connected(session, {**task.flags, "rpc_urls": [task.against]}))
        store = stack.enter_context(Store(session.db))
        stack.enter_context(store.lock())
        verdicts = compare(
            store,
            chain,
            adapters,
            scope=task.scope,
            sample=task.sample,
            settings=session.config.settings,
            against=second,
        )
        return verdicts, [node.endpoint for node in (chain, second) if node is not None]


def chain_to_verify(session: Session, flags: Mapping[str, Any]) -> str | None:
    """The chain of the flags, else the only one in the database, else None, which means the default."""
    from indexer.config import DEFAULT_CHAIN
    from indexer.queries.known import chain_names

    with closing(open_readonly(session.db)) as conn:  # fails without a database, and creates none
        chain_ids = list(chain_names(conn))
    if not chain_ids:
        raise IndexerError(f"{session.db} holds nothing yet: run `indexer sync` first")
    if flags["chain"] is not None or flags["deployments"]:
        chain: str | None = flags["chain"]
        return chain
    names = sorted(map(session.config.chain_name, chain_ids))
    if len(names) > 1 and DEFAULT_CHAIN not in names:
        raise click.UsageError(f"{session.db} holds several chains ({', '.join(names)}); name one with --chain")
    return names[0] if len(names) == 1 else None


def write(output: Output, verdicts: "Sequence[Verdict]", nodes: Sequence[str]) -> None:
    """Writes a row per deployment, and on stderr the first differences of each; `nodes` are one endpoint or two."""
    against = len(nodes) > 1
    rows = [
        {
            **{name: value for name, value in asdict(verdict).items() if name != "agreed"},
            "block": verdict.block.number,
            "differ": verdict.differ,
            "disputed": len(verdict.disputed) if against else None,
        }
        for verdict in verdicts
    ]
    output.write_dicts(rows, ["deployment", "block", "checked", "differ", *(["disputed"] if against else [])])
    for verdict in verdicts:
        for m in verdict.mismatches[:20]:
            who = f"{m.deployment} {m.account} {m.position_group}".rstrip()
            remark(f"{who}: {m.what} is {m.ours} here, {m.contract} in the contract")
        for d in verdict.disputes[:20]:
            who = f"{d.deployment} {d.account} {d.position_group}".rstrip()
            remark(f"{who}: {d.what} is {d.ours} here, {d.contract} at {nodes[0]}, {d.against} at {nodes[1]}")
