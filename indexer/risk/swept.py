"""A sweep as tasks: one deployment of one file each, so that several run at once."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from indexer.errors import IndexerError
from indexer.executors import results
from indexer.model import Deployment
from indexer.risk.scenario import Names, Scenario, Sweep
from indexer.risk.simulate import Totals, sweep
from indexer.store import books as stored
from indexer.store.books import Book
from indexer.store.database import file_of, open_readonly


@dataclass(frozen=True, slots=True)
class Task:
    """Which deployment of which file, at which block, and what is supposed."""

    path: str
    chain_id: int
    deployment: Deployment
    block_hash: str
    scenario: Scenario
    swept: Sweep
    groups: dict[str, tuple[str, ...]]
    wallets: tuple[str, ...]
    least: float | None
    at_risk_below: float


def of_deployment(task: Task) -> list[Totals]:
    """The totals of each step. IndexerError if the file has another block by now."""
    name = task.deployment.name
    with closing(open_readonly(task.path)) as conn:
        conn.execute("begin")
        rows = stored.deployments(conn, chain_id=task.chain_id, names=[name])
        if [row["block_hash"] for row in rows] != [task.block_hash]:
            raise IndexerError(f"{task.path} has a new snapshot of {name} by now: run again")
        books = stored.load(conn, rows, {name: task.deployment}, wallets=task.wallets, min_debt=task.least)
        steps = sweep(books, task.scenario, task.swept, Names(task.groups), at_risk_below=task.at_risk_below)
        return [one for _, (one,) in steps]


def sweep_elsewhere(
    books: Sequence[Book],
    scenario: Scenario,
    swept: Sweep,
    names: Names,
    at_risk_below: float,
    where: str,
    insecure: bool,
) -> list[tuple[float, list[Totals]]]:
    """As `simulate.sweep`, with each book's part as a task of its own; `where` as `executors.executor` has it."""
    groups = {name: tuple(sorted(members)) for name, members in names.groups.items()}
    tasks = [
        Task(
            file_of(book.positions.conn),
            book.chain_id,
            book.adapter.deployment,
            book.market.block.hash,
            scenario,
            swept,
            groups,
            tuple(book.positions.wallets),
            book.positions.least,
            at_risk_below,
        )
        for book in books
    ]
    parts = results(where, of_deployment, [(task,) for task in tasks], insecure=insecure)
    return [(float(share * 100), [part[n] for part in parts]) for n, share in enumerate(swept.shares)]
