"""Several files, one a chain, answer as one file that holds the same rows."""

import gc
import json
import math
import random
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.chain.client import Chain
from indexer.cli.main import main
from indexer.errors import StoreError
from indexer.jobs.prices import fill
from indexer.model import Accounts
from indexer.queries import exports, ranking
from indexer.queries.exports import Kind
from indexer.queries.queries import deployments_of, unlisted
from indexer.queries.scope import Order, Scope
from indexer.queries.shards import chained, split
from indexer.settings import Settings
from indexer.store import books
from indexer.store.database import open_readonly
from indexer.store.deployments import described
from indexer.store.shards import MOST_ATTACHED, opened
from indexer.store.store import Store
from indexer.sync.sync import Sync
from indexer.transfer.merging import merge
from tests.devnet import aave_v3, compound_v3
from tests.devnet.node import MULTICALL3, Anvil
from tests.devnet.scenario import Devnet
from tests.forecast.past import fill_books
from tests.truth import adapter_of, deployment_of, raw

#: columns that say when somebody looked
WALLETS = [f"0x{number:040x}" for number in range(1, 7)]
#: who controls what those people are the wallets behind
OWNER = f"0x{0xABC:040x}"
CLOCKS = {"age_seconds", "age", "synced_at", "seconds_left", "percent"}


def sync(path: Path, name: str, market: Devnet, times: int = 2) -> None:
    """Some snapshots of one market of a chain with that name."""
    node = market.node
    with closing(Chain(name, node.chain_id, [node.url], MULTICALL3)) as chain, Store(path) as store, store.lock():
        worker = Sync(store, chain, [adapter_of(replace(deployment_of(market), chain=name))], Accounts.ALL, Settings())
        for number in range(times):
            outcome = worker.snapshot()
            if number + 1 < times:
                market.step(number)
        fill(worker, None, outcome.block)


@pytest.fixture(scope="module")
def folder(needs_node: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three chains on which the same people hold something, in a file each, and all of them in `one.db` beside the folder."""
    root = tmp_path_factory.mktemp("shards")
    made = root / "dbs"
    made.mkdir()
    kinds = {
        "first": lambda node: aave_v3.deploy(node, "3.6"),
        "second": compound_v3.deploy,
        "third": lambda node: aave_v3.deploy(node, "3.0.2"),
    }
    for number, (name, deploy) in enumerate(kinds.items()):
        with Anvil(chain_id=9_000 + number) as node:
            node.place_multicall3()
            market = deploy(node)
            market.name = f"market-{name}"
            market.populate(1, 12)
            sync(made / f"{name}.db", name, market)
    for path in made.glob("*.db"):
        share(path)
    merge(sorted(made.glob("*.db")), root / "one.db")
    return made


def share(path: Path) -> None:
    """Makes the same people the wallets behind some positions of each file: two of several there, one of a single one."""
    with closing(sqlite3.connect(path)) as conn:
        keys = conn.execute("select account from positions where debt_usd > 0 order by account").fetchall()
        for number, (account,) in enumerate(keys[:5]):
            sql = "update positions set wallet = ?, owner = ?, owner_via = 'cdp-manager' where account = ?"
            conn.execute(sql, (WALLETS[2 if number == 4 else number % 2], OWNER, account))
        conn.commit()


def run(db: Path | str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--db", str(db), *arguments])


def comparable(value: Any) -> Any:
    """JSON without clocks, and floats to twelve digits: sums of floats depend on their order in the last ones."""
    if isinstance(value, dict):
        return {name: comparable(inner) for name, inner in value.items() if name not in CLOCKS}
    if isinstance(value, list):
        return [comparable(inner) for inner in value]
    return float(f"{value:.12g}") if isinstance(value, float) and math.isfinite(value) else value


def a_wallet(folder: Path) -> str:
    """One that has positions on several chains."""
    sql = "select wallet from positions group by wallet having count(distinct chain_id) > 1 order by wallet"
    return str(raw(folder.parent / "one.db", sql)[0][0])


COMMANDS = [
    "at-risk",
    "at-risk --below 5 --sort wallet:asc",
    "at-risk --below 5 --chain second --limit 2",
    *(f"export {kind}" for kind in Kind if kind is not Kind.AT_RISK),
    "export positions --sort health_factor_raw:asc --limit 7",
    "export balances --sort symbol --min-debt 1",
    "export wallets --below 3 --sort debt_usd:asc",
    "export wallets --chain third",
    "export wallets --protocol compound-v3 --min-debt 10 --limit 3",
    *(f"top --by {by} --limit 4" for by in ranking.RANKS),
    "status",
    "status --wallet WALLET",
    "show WALLET",
    f"show {OWNER}",
    "show --target 2 WALLET --exact",
    "report WALLET --format json --since 3650d",
    "report book --format json --since 3650d",
    "report book --format json --protocol aave-v3 --levels WETH",
    "simulate --all --shock WETH=-40%",
    "simulate WALLET --shock WETH=-40%",
    "simulate --all --sweep WETH=0..-60%:20%",
    "levels WETH",
    "movements --since 3650d --min 0",
    "liquidations",
    "opportunities --below 3",
    "query select+deployment,count(*),sum(debt_usd)+from+positions+group+by+1+order+by+1",
    "query select+*+from+wallets+order+by+wallet",
    "query select+chain_id,deployment,positions,at_risk+from+sync_status+order+by+1",
    "query select+account,profit_before_gas_usd+from+opportunities+order+by+1,2",
    "watch list",
    "oracles",
    "oracles WETH --chain first",
    "volatility",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_answers_over_a_folder_as_over_one_file(folder: Path, command: str) -> None:
    wallet = a_wallet(folder)
    arguments = [part.replace("WALLET", wallet).replace("+", " ") for part in command.split()]
    form = [] if "--format" in arguments else ["--json"]
    one, many = run(folder.parent / "one.db", *arguments, *form), run(folder, *arguments, *form)
    assert one.exit_code == many.exit_code == 0, (one.stderr, many.stderr)
    assert comparable(json.loads(many.stdout)) == comparable(json.loads(one.stdout))
    assert len(json.loads(one.stdout)) or "liquidations" in command or "watch" in command


def test_watched_wallets_are_in_a_file_of_their_own_and_known_by_their_labels(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "dbs"
    shutil.copytree(folder, own)
    wallet = a_wallet(folder)
    assert run(own, "watch", "add", wallet, "--label", "treasury", "--below", "1.2").exit_code == 0
    assert {path.name for path in own.glob("*.db")} == {"first.db", "second.db", "third.db", "watch.db"}
    assert raw(own / "first.db", "select count(*) from watches") == [(0,)]
    with closing(sqlite3.connect(own / "first.db")) as conn, conn:
        conn.execute(
            "insert into watch_states select chain_id, deployment, account, position_group, wallet, 'below 1.2', 0, 1, 1, null, "
            "null, null, block_number from positions where wallet = ?",
            (wallet,),
        )
    rows = json.loads(run(own, "watch", "list", "--json").stdout)
    assert {row["chain_id"] for row in rows if row["open"] == "below 1.2"} == {9_000}
    assert {row["chain_id"] for row in rows if row["label"] == "treasury"} >= {9_000}
    assert len(rows) == len(json.loads(run(own, "show", wallet, "--json").stdout))
    assert run(own, "show", "treasury", "--json").stdout == run(own, "show", wallet, "--json").stdout
    assert run(own, "query", "select label from watches", "--json").stdout.count("treasury") == 1
    assert run(own, "watch", "remove", "treasury").exit_code == 0


def test_more_files_than_one_query_reads_are_refused_with_two_ways_out(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "dbs"
    own.mkdir()
    for number in range(MOST_ATTACHED + 1):
        path = own / f"chain{number}.db"
        shutil.copy(folder / "first.db", path)
        renumber(path, 10_000 + number)
    refused = run(own, "query", "select 1")
    assert refused.exit_code == 2
    assert "--chain" in refused.stderr
    assert "merge" in refused.stderr
    rows = json.loads(run(own, "export", "positions", "--json").stdout)
    assert len(rows) == (MOST_ATTACHED + 1) * raw(folder / "first.db", "select count(*) from positions")[0][0]


def renumber(path: Path, chain_id: int) -> None:
    """Makes a file one of another chain."""
    with closing(sqlite3.connect(path)) as conn:
        for (table,) in conn.execute("select name from sqlite_master where type = 'table'").fetchall():
            if any(name == "chain_id" for _, name, *_ in conn.execute(f"pragma table_info({table})")):
                conn.execute(f"update {table} set chain_id = {chain_id}")
        conn.commit()


def test_a_chain_in_two_files_is_refused_naming_both(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "dbs"
    shutil.copytree(folder, own)
    shutil.copy(own / "first.db", own / "again.db")
    refused = run(own, "at-risk")
    assert refused.exit_code == 1
    assert "again.db" in refused.stderr
    assert "first.db" in refused.stderr


def test_an_empty_folder_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "dbs").mkdir()
    for command in ("at-risk", "status", "top", "report book", "export wallets"):
        done = run(tmp_path / "dbs", *command.split(), *([] if "report" in command else ["--json"]))
        assert "run `indexer sync`" in done.stderr, done.output
    with pytest.raises(StoreError, match="there is no folder"), opened(tmp_path / "nowhere"):
        pass


def test_what_is_not_asked_of_each_file_fails_rather_than_answers_for_a_part(folder: Path) -> None:
    with opened(folder) as conn, pytest.raises(sqlite3.OperationalError, match="no such table: positions"):
        conn.execute("select * from positions")


# random rows ------------------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(st.none(), st.sampled_from([0.0, 1.0, 2.5, 1e6]), st.floats(0, 1e9))


@st.composite
def scopes(draw: st.DrawFn) -> Scope:
    columns = "wallet deployment debt_usd health_factor health_factor_raw status".split()
    return Scope(
        chain_id=draw(st.sampled_from([None, None, 9_000, 9_002])),
        wallets=draw(st.sampled_from([(), (), WALLETS[:2]])),
        order=draw(st.one_of(st.none(), st.builds(Order, st.sampled_from(columns), st.booleans()))),
        limit=draw(st.one_of(st.none(), st.integers(1, 9))),
    )


def scramble(paths: Sequence[Path], seed: int) -> None:
    """Random debts, health and owners, with unknown ones among them; wallets have positions on several chains."""
    rng = random.Random(seed)
    numbers = (None, 0.0, 1.0, 2.5, 1e6, rng.uniform(0, 1e9))
    for path in paths:
        with closing(sqlite3.connect(path)) as conn:
            keys = conn.execute("select account, position_group from positions").fetchall()
            for key in keys:
                factor = rng.choice(
                    [None, "0", "999999999999999999", "1000000000000000000", str(rng.randrange(10**19))]
                )
                values = (
                    rng.choice(WALLETS), rng.choice(numbers), rng.choice(numbers), factor,
                    None if factor is None else int(factor) / 10**18,
                    rng.choice(["healthy", "at-risk", "liquidatable", "no-debt", "unverified", "unpriceable"]),
                )  # fmt: skip
                conn.execute(
                    "update positions set wallet = ?, debt_usd = ?, collateral_usd = ?, health_factor_raw = ?, "
                    "health_factor = ?, status = ? where (account, position_group) = (?, ?)",
                    (*values, *key),
                )
            conn.commit()


@pytest.fixture(scope="module")
def scrambled(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders with random rows, each with the same rows in `one.db` beside it."""
    made = []
    for seed in range(4):
        root = tmp_path_factory.mktemp("scrambled")
        shutil.copytree(folder, root / "dbs")
        scramble(sorted((root / "dbs").glob("*.db")), seed)
        merge(sorted((root / "dbs").glob("*.db")), root / "one.db")
        made.append(root / "dbs")
    return made


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    number=st.integers(0, 3),
    kind=st.sampled_from([Kind.AT_RISK, Kind.POSITIONS, Kind.WALLETS]),
    scope=scopes(),
    below=st.sampled_from([None, 1.0, 1.1, 5.0]),
    min_debt=st.sampled_from([None, None, 2.0]),
    protocols=st.sampled_from([(), ("aave-v3",)]),
    by=st.sampled_from([*ranking.RANKS]),
)
def test_several_files_answer_what_one_file_answers(
    scrambled: list[Path],
    number: int,
    kind: Kind,
    scope: Scope,
    below: float | None,
    min_debt: float | None,
    protocols: Sequence[str],
    by: str,
) -> None:
    folder = scrambled[number]
    if kind is Kind.WALLETS and scope.order is not None and scope.order.column in ("status", "deployment"):
        scope = replace(scope, order=Order("positions", scope.order.ascending))
    answers = []
    with closing(open_readonly(folder.parent / "one.db")) as one, opened(folder) as several:
        for conn in (one, several):
            names, rows = exports.select(conn, kind, below=below, min_debt=min_debt, protocols=protocols, scope=scope)
            _, best = ranking.top(
                conn,
                by,
                limit=scope.limit or 3,
                min_debt=min_debt,
                protocols=protocols,
                scope=replace(scope, order=None),
            )
            answers.append(
                [
                    names,
                    [comparable(list(row)) for row in rows],
                    [comparable(list(row)) for row in best],
                    sorted(unlisted(conn, 1.1, protocols, scope)),
                    deployments_of(conn, scope, min_debt),
                ]
            )
    assert answers[0] == answers[1]


def test_rows_may_be_left_unread_when_their_file_is_closed() -> None:
    """As after an error. Whatever a generator says then fails any test, see `filterwarnings`."""
    with closing(sqlite3.connect(":memory:")) as conn:
        rows = chained(conn, "select value from json_each('[1, 2, 3]') where value > ?", [1])
        assert next(rows) == (2,)
    del rows
    gc.collect()


def test_terms_of_an_order_are_split_outside_brackets() -> None:
    order = "a is null, case when s in ('x', 'y') then b else 0 end desc, c"
    assert split(order) == ["a is null", "case when s in ('x', 'y') then b else 0 end desc", "c"]


# forecasts --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_past(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a past of prices, so that there are chances, and all of it in `one.db` beside the folder."""
    made = tmp_path_factory.mktemp("past") / "dbs"
    shutil.copytree(folder, made)
    for path in made.glob("*.db"):
        with Store(path) as store:
            store.conn.row_factory = sqlite3.Row
            with store.transaction() as conn:
                fill_books(conn, books.load(conn, books.deployments(conn), described(conn, dict)))
    merge(sorted(made.glob("*.db")), made.parent / "one.db")
    return made


@pytest.mark.parametrize(
    "command", ["", "WALLET --within 1d", "book", "book --by wallet", "book --by asset", "--chain second --limit 3"]
)
def test_chains_of_a_folder_are_forecast_on_the_same_paths_as_those_of_one_file(with_past: Path, command: str) -> None:
    arguments = ["forecast", *command.replace("WALLET", a_wallet(with_past)).split(), "--paths", "300", "--json"]
    one, many = run(with_past.parent / "one.db", *arguments), run(with_past, *arguments)
    assert one.exit_code == many.exit_code == 0, (one.stderr, many.stderr)
    assert comparable(json.loads(many.stdout)) == comparable(json.loads(one.stdout)) != []


def test_forecasts_are_in_the_file_of_their_chain_and_judged_over_all(with_past: Path, tmp_path: Path) -> None:
    shutil.copytree(with_past, tmp_path / "dbs")
    shutil.copy(with_past.parent / "one.db", tmp_path / "one.db")
    for db in (tmp_path / "dbs", tmp_path / "one.db"):
        assert run(db, "forecast", "--paths", "300", "--json").exit_code == 0
    files = sorted((tmp_path / "dbs").glob("*.db"))
    for number, path in enumerate(files):
        assert raw(path, "select distinct chain_id from forecasts") == [(9_000 + number,)]
    made = "select chain_id, account, position_group, horizon_seconds, hits from forecasts order by 1, 2, 3, 4"
    assert [row for path in files for row in raw(path, made)] == raw(tmp_path / "one.db", made)
    assert {hits for *_, hits in raw(tmp_path / "one.db", made)} - {None, 0, 300}
    for path in (*files, tmp_path / "one.db"):  # as if they had been made so long ago that all has come
        with closing(sqlite3.connect(path)) as conn, conn:
            conn.execute("update forecasts set block_timestamp = block_timestamp - 864000")
    one, many = (run(db, "backtest", "--format", "json") for db in (tmp_path / "one.db", tmp_path / "dbs"))
    assert one.exit_code == many.exit_code == 0, (one.stderr, many.stderr)
    assert many.stdout.replace("from dbs", "from one.db") == one.stdout
    assert "left alone" in one.stdout


@pytest.mark.parametrize("command", ["watch run", "watch check"])
def test_what_is_for_one_file_is_refused_naming_the_way(folder: Path, command: str) -> None:
    refused = run(folder, *command.split())
    assert refused.exit_code == 2
    assert f"{folder}/CHAIN.db" in refused.stderr
