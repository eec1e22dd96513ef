"""The verb `verify`."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from indexer.errors import IndexerError
from indexer.store.database import open_readonly
from indexer.terminal.options import Session, chain_options, connected, session_of
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
@output_options
@session_of
def verify(
    session: Session,
    /,
    everyone: bool,
    risky: bool,
    sample: int | None,
    against: str | None,
    output: Output,
    **flags: Any,
) -> None:
    """Compare the rows with the contracts' own answers at the same block; exit with 1 if any differs.

    With --against, where two nodes contradict each other, neither is believed and the rows become unverified.
    """
    from indexer.store.store import Store
    from indexer.sync.verify import verify as compare

    chosen = [name for name, given in (("all", everyone), ("at-risk", risky), ("sample", sample)) if given]
    if len(chosen) > 1:
        raise click.UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other; choose one")
    flags["chain"] = chain_to_verify(session, flags)
    with ExitStack() as stack:
        chain, adapters = stack.enter_context(connected(session, flags))
        second = None
        if against is not None:
            second, _ = stack.enter_context(connected(session, {**flags, "rpc_urls": [against]}))
        store = stack.enter_context(Store(session.db))
        stack.enter_context(store.lock())
        verdicts = compare(
            store,
            chain,
            adapters,
            scope=chosen[0] if chosen else "sample",
            sample=sample or 100,
            settings=session.config.settings,
            against=second,
        )
        nodes = [node.endpoint for node in (chain, second) if node is not None]
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


def chain_to_verify(session: Session, flags: Mapping[str, Any]) -> str | None:
    """The chain of the flags, else the only one in the database, else None, which means the default."""
    from indexer.config import DEFAULT_CHAIN

    with closing(open_readonly(session.db)) as conn:  # fails without a database, and creates none
        chain_ids = [row["chain_id"] for row in conn.execute("select distinct chain_id from deployments")]
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
