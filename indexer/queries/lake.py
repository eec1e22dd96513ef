"""SQL of the user's over a lake, by DuckDB: views of the same names as the tables, and nothing that could write."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.errors import IndexerError, StoreError
from indexer.extras import how_to_install
from indexer.queries.freshness import Freshness
from indexer.text.values import Row

if TYPE_CHECKING:
    import duckdb

TABLES = {"positions": "*/*", "balances": "*/*", "markets": "*/*", "health_history": "*/*/*"}
KEY = "chain_id, deployment, account, position_group"
AT_RISK = "select * from positions where status in ('at-risk', 'liquidatable') order by health_factor nulls last"
#: as the view of the databases; a wallet on several chains is added up
WALLETS = f"""
with supplied as (
    select {KEY}, case when count(value_usd) = count(*) then sum(value_usd) end as usd
    from balances where side = 'supply' group by {KEY}
), lines as (
    select p.*, case when s.account is null then p.collateral_usd else s.usd end as supply_usd,
        row_number() over (partition by p.wallet order by p.health_factor nulls last, {KEY}) as badness
    from positions p left join supplied s using ({KEY})
), sums as (
    select wallet, count(*) as positions,
        case when count(supply_usd) = count(*) and min(supplies_complete) = 1 then sum(supply_usd) end as supply_usd,
        case when count(debt_usd) = count(*) then sum(debt_usd) end as debt_usd,
        max(case when badness = 1 then health_factor_raw end) as health_factor_raw,
        min(health_factor) as health_factor,
        max(case when badness = 1 then chain_id end) as worst_chain_id,
        max(case when badness = 1 then deployment end) as worst_deployment,
        max(case when badness = 1 then account end) as worst_account,
        max(case when badness = 1 then position_group end) as worst_position_group,
        min(block_number) as oldest_block_number
    from lines group by wallet
)
select wallet, positions, supply_usd as collateral_usd, debt_usd, supply_usd - debt_usd as net_usd, health_factor_raw,
    health_factor, worst_chain_id, worst_deployment, worst_account, worst_position_group, oldest_block_number, supply_usd
from sums
"""  # noqa: S608 - our own names


def run(lake: Path, sql: str) -> tuple[list[str], Iterator[Row]]:
    """Columns and rows of one SELECT. StoreError where there is no lake, IndexerError for any other statement."""
    try:
        import duckdb  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise IndexerError(f"a query of a lake needs the extra `lake`: {how_to_install('lake')}") from None
    try:
        conn = opened(lake)
    except duckdb.Error as error:
        said = " ".join(str(error).partition("LINE 1:")[0].split())[:300]
        raise StoreError(f"{lake} cannot be read: {said}; `indexer export --lake {lake}` writes it again") from error
    try:
        statements = conn.extract_statements(sql)
        if [one.type for one in statements] != [duckdb.StatementType.SELECT]:
            raise IndexerError(f"a query may only read: one SELECT, not {' '.join(sql.split())[:200]}")
        found = conn.execute(statements[0])
    except duckdb.Error as error:
        raise IndexerError(f"{' '.join(str(error).split())[:300]}: {' '.join(sql.split())[:200]}") from error

    def rows() -> Iterator[Row]:
        try:
            while part := found.fetchmany(10_000):
                yield from part
        finally:
            conn.close()

    return [column[0] for column in found.description or ()], rows()


def opened(lake: Path) -> "duckdb.DuckDBPyConnection":
    """A connection in memory with a view for each table of the lake; it reads that folder and nothing else."""
    import duckdb  # noqa: PLC0415 - an extra, and slow to import

    there = {name: f"{lake.absolute()}/{name}/{places}.parquet" for name, places in TABLES.items()}
    there = {name: places for name, places in there.items() if any((lake / name).glob(f"{TABLES[name]}.parquet"))}
    if "positions" not in there:
        raise StoreError(f"there is no lake in {lake}: `indexer export --lake {lake}` writes one")
    conn = duckdb.connect(":memory:")
    for name, places in there.items():
        quoted = places.replace("'", "''")
        conn.execute(f"create view {name} as select * from read_parquet('{quoted}', union_by_name = true)")  # noqa: S608
    if "balances" in there:
        conn.execute(f"create view at_risk as {AT_RISK}")
        conn.execute(f"create view wallets as {WALLETS}")
    folder = f"{lake.absolute()}/".replace("'", "''")
    conn.execute(f"set allowed_directories = ['{folder}']")
    conn.execute("set enable_external_access = false")
    conn.execute("set lock_configuration = true")
    return conn


def freshness(lake: Path) -> list[Freshness]:
    """Of which block the rows of each deployment in a lake are; when its files were written says nothing about that."""
    sql = (
        "select chain_id, deployment, max(block_number), max(block_timestamp) from positions group by all order by all"
    )
    return [Freshness(chain, name, "ok", None, block, at) for chain, name, block, at in run(lake, sql)[1]]
