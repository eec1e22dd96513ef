"""The schema, as an ordered list of migrations; a released migration is never edited.

A migration adds tables and columns, and replaces views; none deletes a row. All migrations due run in one transaction, so a
file is never left between two versions. There is no way back, and none is needed: an older version refuses the file.

sqlite-utils applies them and records which were applied, so its own tools can read that too. It is imported only when there
is something to apply, and without NumPy and pandas, which it takes with it where they are installed, for types of values that no
migration has: together they would be half a second and 90 MB of a first sync.

The steps of the view `wallets`, of the past, of prices and of alerts have modules of their own; the rest is here, and a new one goes
to the end of the module of its tables.
"""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from indexer.schema import alerts, forecasts, history, prices, wallets  # noqa: F401 - each registers its steps
from indexer.schema.steps import STEPS, execute, migrations
from indexer.schema.tables import DISPUTES, DOUBTED, INITIAL, LIQUIDATIONS

if TYPE_CHECKING:
    from sqlite_utils import Database

NAME = "lending-indexer"
#: the table in which sqlite-utils records the applied migrations
TABLE = "_sqlite_migrations"


def applied(conn: sqlite3.Connection) -> list[str]:
    """The names of the migrations applied to a database, in order; some may be of a newer version."""
    if conn.execute("select 1 from sqlite_master where type = 'table' and name = ?", (TABLE,)).fetchone() is None:
        return []
    rows = conn.execute(f"select name from {TABLE} where migration_set = ? order by rowid", (NAME,))
    return [row[0] for row in rows]


def pending(conn: sqlite3.Connection) -> list[str]:
    """The names of the migrations that a database still needs."""
    done = applied(conn)
    return [name for name in sorted(STEPS) if name not in done]


def unknown(conn: sqlite3.Connection) -> list[str]:
    """The names of the migrations of a newer version that a database has."""
    return [name for name in applied(conn) if name not in STEPS]


def apply(conn: sqlite3.Connection) -> None:
    """Brings a database to the current schema, inside the caller's transaction."""
    with _absent("numpy", "pandas"):
        from sqlite_utils import Database, Migrations  # noqa: PLC0415 - see above

    steps = Migrations(NAME)
    for name in sorted(STEPS):
        steps(name=name)(STEPS[name])
    steps.apply(Database(conn, execute_plugins=False))


@contextmanager
def _absent(*names: str) -> Iterator[None]:
    """Lets these modules seem not to be installed, unless they are loaded already."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type] # importlib takes None for "there is none"
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


CONTRACTS = """
create table contracts (                -- contracts that may be the protocol's and that only logs name (Maker's joins)
    chain_id integer not null,
    deployment text not null,
    contract text not null collate nocase,
    first_block integer not null,       -- that of the first log which names it
    primary key (chain_id, deployment, contract)
) strict, without rowid
"""


@migrations(name="0001_initial")
def initial(db: "Database") -> None:
    execute(db, INITIAL)


@migrations(name="0005_contracts")
def contracts(db: "Database") -> None:
    db.conn.execute(CONTRACTS)


@migrations(name="0010_partial_snapshots")
def partial_snapshots(db: "Database") -> None:
    """Rows get the time of their own block, deployments the health factor below which all rows are of their block."""
    db.conn.execute("alter table positions add column block_timestamp integer")
    db.conn.execute(
        "update positions set block_timestamp = (select d.block_timestamp from deployments d where "
        "(d.chain_id, d.deployment, d.block_number) = (positions.chain_id, positions.deployment, positions.block_number))"
    )
    db.conn.execute("alter table deployments add column exact_below real")
    db.conn.execute("create index states_by_block on states (chain_id, deployment, block_number)")


@migrations(name="0012_described_deployments")
def described_deployments(db: "Database") -> None:
    """What an adapter needs to read the rows; NULL until the next sync of a deployment that an older version wrote."""
    for column in ("chain text", "start_block integer", "addresses text", "options text"):  # the last two are JSON
        db.conn.execute(f"alter table deployments add column {column}")


@migrations(name="0013_notes")
def notes(db: "Database") -> None:
    """What is unpriceable or unverified about a position, and why; NULL where nothing is."""
    db.conn.execute("alter table positions add column note text")


COVERAGE = """
alter table deployments add column coverage text;
update deployments set coverage = case
        when accounts = 'watched' or complete_from is not null or state = 'incomplete' then 'partial' else 'history' end
    where block_number is not null and state <> 'failed';

create table imported (                 -- accounts that a file named and nobody has asked the contracts about yet
    chain_id integer not null,
    deployment text not null,
    account text not null collate nocase,
    position_group text not null,
    primary key (chain_id, deployment, account, position_group)
) strict, without rowid;
"""


@migrations(name="0016_coverage")
def coverage(db: "Database") -> None:
    """How it is known that nobody with debt is missing: history | sums | partial; NULL until a snapshot tells."""
    execute(db, COVERAGE)


@migrations(name="0017_progress")
def progress(db: "Database") -> None:
    """How far a run is while it works: blocks of logs fetched and wanted, positions read and wanted, and since when."""
    for column in ("blocks", "blocks_wanted", "positions_wanted", "stage_began_at", "told_at"):
        db.conn.execute(f"alter table runs add column {column} integer")


@migrations(name="0018_liquidations")
def liquidations(db: "Database") -> None:
    execute(db, LIQUIDATIONS)
    # the first block from which on every liquidation is in the table; null where none is complete up to the snapshot
    db.conn.execute("alter table deployments add column liquidations_from_block integer")


CHANGES = """
create table changes (                  -- how the list of who is at risk changed, in order; kept 24 hours
    id integer primary key,
    chain_id integer not null,
    block_number integer not null,
    block_hash text not null,
    kind text not null,                 -- entered | changed | left | reorged; block: the list is now that of this block
    body text not null                  -- JSON: the rest of the line that readers get
) strict;
create index changes_by_chain on changes (chain_id);
create index changes_blocks on changes (chain_id) where kind = 'block';
"""


@migrations(name="0019_changes")
def changes(db: "Database") -> None:
    execute(db, CHANGES)


@migrations(name="0027_disputes")
def disputes(db: "Database") -> None:
    """A dispute outlives the row that a later snapshot writes. Those of before are known by what their rows say."""
    db.conn.execute(DISPUTES)
    db.conn.execute(
        "insert into disputes select chain_id, deployment, account, position_group, block_number from positions "
        "where status = 'unverified' and note like 'two endpoints contradict each other about it%'"
    )


@migrations(name="0028_doubted")
def doubted(db: "Database") -> None:
    """Marks, and drops nothing: a Borrow or Transfer of nothing once named an account. The logs tell, `sync` asks them."""
    db.conn.execute(DOUBTED)
    db.conn.execute(
        "insert into doubted select chain_id, deployment, account, position_group from positions p "
        "where protocol = 'compound-v2' and status = 'no-debt' "
        "and not exists (select 1 from balances b where (b.chain_id, b.deployment, b.account, b.position_group) "
        "= (p.chain_id, p.deployment, p.account, p.position_group)) "
        "and not exists (select 1 from health_history h where (h.chain_id, h.deployment, h.account, h.position_group) "
        "= (p.chain_id, p.deployment, p.account, p.position_group) and h.status <> 'no-debt')"
    )


@migrations(name="0035_start_block_found")
def start_block_found(db: "Database") -> None:
    """The first block of a deployment as the chain proves it; NULL until then, and where nothing proves it."""
    db.conn.execute("alter table deployments add column start_block_found integer")
