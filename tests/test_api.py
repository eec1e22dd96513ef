"""`import indexer` answers what the commands print, types what it promises, and changes neither without a CHANGELOG line."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, get_type_hints

import griffe
import pytest
from click.testing import CliRunner

import indexer
from indexer.api.simulation import percent
from indexer.cli.main import VERBS, main
from indexer.store import books
from indexer.store.deployments import described
from indexer.store.rows import BALANCE_COLUMNS, POSITION_COLUMNS, BalanceRow, PositionRow
from indexer.store.store import Store
from tests.devnet import aave_v3
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.scenario import config_toml
from tests.forecast.past import fill_books
from tests.recorded import recorded_folder
from tests.truth import raw

ROOT = Path(__file__).parents[1]
CONTRACT = Path(__file__).parent / "api.json"


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database of six markets, as a sync recorded it."""
    return recorded_folder(tmp_path_factory.mktemp("api"))


@pytest.fixture
def folder(synced: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(synced)
    return synced


@pytest.fixture
def book(folder: Path) -> Iterator[indexer.Book]:
    with indexer.open("indexer.db") as book:
        yield book


def printed(*arguments: str) -> Any:
    """What a command prints as JSON."""
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def same(found: Any, expected: list[dict[str, Any]]) -> None:
    rows = list(found)
    assert len(rows) == len(expected) > 0
    for row, other in zip(rows, expected, strict=True):
        assert {name: row[name] for name in other} == other


def test_lists_are_those_of_the_commands(book: indexer.Book) -> None:
    same((p.as_row() for p in book.at_risk()), printed("at-risk"))
    same(
        (p.as_row() for p in book.at_risk(below=1.05, min_debt=100)),
        printed("at-risk", "--below", "1.05", "--min-debt", "100"),
    )
    same(
        (p.as_row() for p in book.positions(protocols=["maker"])), printed("export", "positions", "--protocol", "maker")
    )
    one = "aave-v2-devnet"
    same(
        (p.as_row() for p in book.positions(deployments=[one], chain="devnet")),
        printed("export", "positions", "--deployment", one),
    )
    sql = "select status, count(*) as n, max(debt_value_raw) as most from positions group by status"
    same(book.sql(sql), printed("query", sql))
    ages = {"age_seconds"}
    same(
        ({k: v for k, v in row.items() if k not in ages} for row in book.status()),
        [{k: v for k, v in row.items() if k not in ages} for row in printed("status")],
    )


def test_the_largest_wallets_and_movements_are_those_of_the_commands(book: indexer.Book) -> None:
    for by in ("debt", "collateral", "risk"):
        same(book.top(by, limit=7, min_debt=10), printed("top", "--by", by, "--limit", "7", "--min-debt", "10"))


def test_movements_are_those_of_the_command(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "moved.db"
    path.write_bytes((folder / "indexer.db").read_bytes())
    with Store(path) as store:
        store.conn.execute("update health_history set supply_change_usd = 7.5 where account < '0x8'")
        (first,) = store.conn.execute("select min(block_number) from health_history").fetchone()
    with indexer.open(path) as book:
        for since, flag in ((datetime(2000, 1, 1, tzinfo=UTC), "2000-01-01"), (first - 1, str(first - 1))):
            result = CliRunner().invoke(main, ["--db", str(path), "movements", "--min", "1", "--since", flag, "--json"])
            found = book.movements(since=since, min_usd=1)
            expected = json.loads(result.stdout)
            same(found, expected)
            assert all(line in result.stderr for line in found.remarks)
            for row in expected:
                at = datetime.fromisoformat(row["last_block_time"])
                assert at == datetime.fromtimestamp(row["last_block_timestamp"], UTC)
        assert len(list(book.movements(since=10**9))) == 0


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of `indexer demo`, which has liquidations, with a made-up past of every price."""
    folder = tmp_path_factory.mktemp("api") / "demo"
    assert CliRunner().invoke(main, ["demo", str(folder)]).exit_code == 0
    with Store(folder / "indexer.db") as store:
        store.conn.row_factory = sqlite3.Row
        with store.transaction() as conn:
            known = described(conn, dict)
            fill_books(conn, books.load(conn, books.deployments(conn), known))
    return folder


@pytest.fixture
def desk(demo: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[indexer.Book]:
    monkeypatch.chdir(demo)
    with indexer.open("indexer.db") as book:
        yield book


def alike(found: indexer.Rows, *arguments: str) -> None:
    """The rows are those that a command prints, and what a reader must know is what it says."""
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    same(found, told)
    assert sorted(told[0]) == sorted(found.columns)
    assert all(line in result.stderr for line in found.remarks)


def test_liquidations_are_those_of_the_command(desk: indexer.Book) -> None:
    alike(desk.liquidations(), "liquidations")
    rows = [*desk.liquidations()]
    middle, whom = rows[len(rows) // 2], rows[0]["account"]
    block, at = middle["block_number"], datetime.fromtimestamp(middle["block_timestamp"], UTC)
    alike(desk.liquidations(since=block), "liquidations", "--since", str(block))
    alike(desk.liquidations(until=at), "liquidations", "--until", at.isoformat())
    alike(desk.liquidations(wallets=[whom.upper().replace("0X", "0x")]), "liquidations", "--wallet", whom)
    repaid = sorted(row["repaid_usd"] for row in rows if row["repaid_usd"] is not None)
    some = repaid[len(repaid) // 2]
    alike(desk.liquidations(min_repaid=some, chain="devnet"), "liquidations", "--min-debt", repr(some))
    assert 0 < sum(1 for _ in desk.liquidations(min_repaid=some)) < len(rows)
    alike(desk.liquidations(protocols=["maker"]), "liquidations", "--protocol", "maker")


def test_it_is_said_which_liquidations_are_not_there(demo: Path, tmp_path: Path) -> None:
    path = tmp_path / "indexer.db"
    path.write_bytes((demo / "indexer.db").read_bytes())
    with Store(path) as store:
        store.conn.execute("update deployments set liquidations_from_block = null where deployment = 'maker'")
        store.conn.execute("update deployments set liquidations_from_block = 900 where deployment = 'compound-v3-usdc'")
    with indexer.open(path) as book:
        found = book.liquidations(), book.liquidations(since=900), book.liquidations(protocols=["aave-v2"])
    told = [
        CliRunner().invoke(main, ["--db", str(path), "liquidations", *flags, "--json"]).stderr
        for flags in ([], ["--since", "900"])
    ]
    for rows, text in zip(found, told, strict=False):
        assert len(rows.remarks) > 0
        assert all(line in text for line in rows.remarks)
    assert [line.partition(";")[0] for line in found[0].remarks] == [
        "compound-v3-usdc: complete from block 900 on",
        "maker: liquidations before the first sync are not fetched",
    ]
    assert [line.partition(":")[0] for line in found[1].remarks] == ["maker"]
    assert found[2].remarks == ()


def test_opportunities_are_those_of_the_command(desk: indexer.Book) -> None:
    alike(desk.opportunities(), "opportunities")
    alike(desk.opportunities(below=1.3, min_debt=100), "opportunities", "--below", "1.3", "--min-debt", "100")
    flags = ["--gas-price", "12.5", "--min-profit", "50", "--chain", "devnet"]
    alike(desk.opportunities(gas_price=12.5, min_profit=50, chain="devnet"), "opportunities", *flags)
    alike(desk.opportunities(deployments=["maker"]), "opportunities", "--deployment", "maker")
    sql = "select account, profit_before_gas_usd from opportunities order by account, deployment"
    for _ in range(2):  # the table is laid once
        same(desk.sql(sql), printed("query", sql))
    assert sum(1 for _ in desk.sql("select account from opportunities")) == sum(1 for _ in desk.opportunities())


def test_levels_are_those_of_the_command(desk: indexer.Book) -> None:
    alike(desk.levels("WETH"), "levels", "WETH")
    flags = ["--step", "1", "--min-debt", "100", "--protocol", "aave-v3"]
    alike(desk.levels("usdc", step=1, min_debt=100, protocols=["aave-v3"]), "levels", "usdc", *flags)
    deployment = "compound-v3-usdc"
    alike(desk.levels("weth", deployments=[deployment]), "levels", "weth", "--deployment", deployment)


def test_oracles_and_volatilities_are_those_of_the_commands(desk: indexer.Book) -> None:
    alike(desk.oracles(), "oracles")
    alike(desk.oracles("eth", chain="devnet"), "oracles", "eth", "--chain", "devnet")
    alike(desk.volatility(), "volatility")
    alike(desk.volatility("WETH", "wbtc"), "volatility", "WETH", "wbtc")


def test_a_forecast_is_that_of_the_command_and_writes_nothing(desk: indexer.Book) -> None:
    found = desk.forecast(paths=300, seed=7)
    rows = [*found.by_position()]
    assert sum(row["hits"] is not None for row in rows) > 100
    assert {row["horizon_seconds"] for row in rows} == {3_600, 86_400, 7 * 86_400}
    whom = rows[0]["wallet"]
    theirs = desk.forecast(whom.upper().replace("0X", "0x"), within=[timedelta(days=2), timedelta(hours=5)], seed=7)
    of_one = desk.forecast(within=[timedelta(days=1)], paths=200, exact=True, deployments=["aave-v2-devnet"])
    assert raw(Path("indexer.db"), "select count(*) from forecasts") == [(0,)]
    flags = ["--paths", "300", "--seed", "7"]
    alike(found.by_position(), "forecast", *flags)
    alike(found.by_deployment(), "forecast", "book", *flags)
    alike(found.by_wallet(), "forecast", "book", "--by", "wallet", *flags)
    alike(found.by_asset(), "forecast", "book", "--by", "asset", *flags)
    alike(theirs.by_position(), "forecast", whom, "--within", "2d,5h", "--seed", "7")
    flags = ["--within", "1d", "--paths", "200", "--exact", "--deployment", "aave-v2-devnet"]
    alike(of_one.by_position(), "forecast", *flags)


def test_rows_of_an_older_block_are_evaluated_once(demo: Path, tmp_path: Path) -> None:
    """As a sync that follows the chain leaves them: all that follows from them is asked again and again."""
    path = tmp_path / "followed.db"
    path.write_bytes((demo / "indexer.db").read_bytes())
    with Store(path) as store:
        store.conn.execute("update deployments set exact_below = 1.2")
        store.conn.execute("update positions set block_number = block_number - 1 where health_factor > 1.3")
    with indexer.open(path) as followed, indexer.open(demo / "indexer.db") as whole:
        for _ in range(2):
            assert [*followed.levels("WETH")] == [*whole.levels("WETH")] != []
            assert [*followed.opportunities(below=2)] == [*whole.opportunities(below=2)] != []
            assert [*followed.at_risk(below=3)] == [*whole.at_risk(below=3)] != []


def test_a_wallet_is_that_of_show(book: indexer.Book) -> None:
    wallets = [
        w for (w,) in raw(Path("indexer.db"), "select wallet from positions where debt_usd > 0 group by protocol")
    ]
    for given in (*([wallet] for wallet in wallets), wallets):
        wallet, shown = book.wallet(*given), printed("show", *given)
        same(
            (p.as_row() for p in wallet.positions),
            [{name: row[name] for name in (*POSITION_COLUMNS, "balances")} for row in shown],
        )
        prices = [one for row in shown for one in row["outlook"]["liquidation_prices"]]
        found = [price.as_row() for price in wallet.liquidation_prices()]
        assert [{name: row[name] for name in other} for row, other in zip(found, prices, strict=True)] == prices
        assert len(wallet.balances) == sum(len(row["balances"]) for row in shown)
        assert wallet.left_out == ()
    remedies = book.wallet(*wallets).to_reach(3)
    same(
        (one.as_row() for one in remedies),
        [one for row in printed("show", *wallets, "--target", "3") for one in row["outlook"]["to_target"]],
    )


def test_a_wallet_adds_up_as_the_view_of_the_file(book: indexer.Book) -> None:
    for address, supply, debt, factor in raw(
        Path("indexer.db"),
        "select wallet, supply_usd, debt_usd, health_factor_raw from wallets where debt_usd > 0 limit 20",
    ):
        wallet = book.wallet(address.upper().replace("0X", "0x"))
        assert wallet.debt_usd == pytest.approx(debt)
        assert wallet.supply_usd == (None if supply is None else pytest.approx(supply))
        assert wallet.health_factor_raw == int(factor)
        assert wallet.health_factor == int(factor) / 10**18
    nobody = book.wallet("0x" + "12" * 20)
    assert (nobody.positions, nobody.health_factor_raw, nobody.to_reach(2)) == ((), None, [])


def test_a_simulation_is_that_of_the_command(book: indexer.Book) -> None:
    flags = ["--shock", "eth=-20%", "--shock", "stablecoins=-2.5%", "--days", "30"]
    found = book.simulate(shocks={"eth": -0.2, "stablecoins": Decimal("-0.025")}, days=30)
    same((p.as_row() for p in found.newly_liquidatable), printed("simulate", *flags))
    same((p.as_row() for p in found.by_asset()), printed("simulate", *flags, "--by", "asset"))
    same((p.as_row() for p in found.by_deployment()), printed("simulate", *flags, "--by", "deployment"))
    whom = found.newly_liquidatable[0].wallet
    theirs = book.simulate(liquidation_thresholds={"WETH": "-5%"}, wallets=[whom])
    same((p.as_row() for p in theirs.positions), printed("simulate", whom, "--liquidation-threshold", "WETH=-5%"))


@pytest.mark.parametrize(
    ("share", "text"),
    [(-0.2, "-20%"), (-0.07, "-7%"), (0.1, "+10%"), (-1, "-100%"), (1e-7, "+0.00001%"), (Decimal("-0.333"), "-33.3%"), ("80%", "80%")],
)  # fmt: skip
def test_a_share_is_the_decimal_that_it_prints_as(share: Any, text: str) -> None:
    written = percent("ETH", share)
    assert Fraction(written.strip("%")) == Fraction(text.strip("%"))
    assert written[0] == text[0]


def test_exact_values_are_integers_and_unknown_ones_none(book: indexer.Book) -> None:
    assert (*indexer.Position.__dataclass_fields__,) == (*POSITION_COLUMNS, "balances")
    assert (*indexer.Balance.__dataclass_fields__,) == BALANCE_COLUMNS
    for position in book.positions():
        assert position.health_factor_raw is None or type(position.health_factor_raw) is int
        if position.health_factor_raw is not None:
            assert position.health_factor_exact == Fraction(position.health_factor_raw, 10**18)
        assert position.block.number == position.block_number
        assert position.balances is None
        with pytest.raises(AttributeError):
            position.debt_usd = 0.0  # type: ignore[misc]


def test_types_are_those_of_the_rows_but_for_exact_integers_and_flags() -> None:
    for kind, row in ((indexer.Position, PositionRow), (indexer.Balance, BalanceRow)):
        stored, promised = get_type_hints(row), get_type_hints(kind)
        promised.pop("balances", None)
        flags = {"supplies_complete": bool, "is_collateral": bool}
        exact = {str: int, str | None: int | None}
        assert promised == {
            name: flags.get(name, exact[told] if name.endswith("_raw") else told) for name, told in stored.items()
        }


def test_tables_for_analysts(book: indexer.Book) -> None:
    sql = "select account, health_factor_raw, debt_usd, supplies_complete from positions where debt_usd > 0"
    expected = [tuple(row.values()) for row in book.sql(sql)]
    frame = book.sql(sql).pandas()
    frame = frame.astype(object).where(frame.notna(), None)  # what pandas makes of NULL is its own affair
    assert [*frame.itertuples(index=False, name=None)] == expected
    table = book.sql(sql).arrow()
    assert [tuple(row.values()) for row in table.to_pylist()] == [(*row[:3], bool(row[3])) for row in expected]
    assert str(table.schema.field("health_factor_raw").type) == "string"
    assert book.sql("select 1 where false").arrow().num_rows == 0


def test_what_is_wrong_is_said_with_the_input(book: indexer.Book) -> None:
    before = Path("indexer.db").read_bytes()
    for call, told in (
        (lambda: book.wallet("0x12"), "'0x12' is not an address"),
        (lambda: book.wallet(*()), "at least one address"),
        (lambda: list(book.at_risk(deployments=["aave-v3-cor"])), "holds no deployment 'aave-v3-cor'"),
        (lambda: list(book.at_risk(protocols=["makre"])), "did you mean 'maker'"),
        (lambda: list(book.at_risk(chain="devnte")), "unknown chain 'devnte'"),
        (lambda: book.simulate(shocks={"ETHH": -0.2}), "ETHH"),
        (lambda: book.simulate(shocks={"ETH": float("nan")}), "ETH: nan is no share"),
        (lambda: book.simulate(shocks={"ETH": -1.5}), "more than 100 %"),
        (lambda: book.wallet("0x" + "12" * 20).to_reach(0.5), "0.5 is no target"),
        (lambda: book.top("size"), "'size' is no rank"),
        (lambda: book.movements(since=datetime(2024, 1, 1)), "has no zone"),  # noqa: DTZ001 - that is wrong with it
        (lambda: book.levels("WETHH"), "no market has the asset 'WETHH'"),
        (lambda: book.levels("WETH", step=51), "51 is no step: 1 to 50"),
        (lambda: book.levels("WETH", deployments=["makre"]), "holds no deployment 'makre'"),
        (lambda: book.opportunities(protocols=["makre"]), "did you mean 'maker'"),
        (lambda: book.liquidations(wallets=["0x12"]), "'0x12' is not an address"),
        (lambda: book.liquidations(since=datetime(2024, 1, 1)), "has no zone"),  # noqa: DTZ001 - as above
        (lambda: book.oracles("ETHH"), "no followed feed or asset is called 'ETHH': no price feed is followed yet"),
        (lambda: book.volatility(chain="devnte"), "unknown chain 'devnte'"),
        (lambda: book.forecast(within=[timedelta(minutes=90)]), "5400 seconds are no horizon"),
        (lambda: book.forecast(within=[timedelta(days=31)]), "are no horizon: full hours or days up to 30"),
        (lambda: book.forecast("0x12"), "'0x12' is not an address"),
        (lambda: indexer.open(".").forecast(), "a forecast is for one chain and its file"),
        (lambda: book.sql("delete from positions"), "may only read"),
        (lambda: indexer.open("nowhere.db"), "no database at nowhere.db"),
        (lambda: indexer.connect("mainnte"), "mainnte"),
        (lambda: indexer.connect("devnet", deployments=["maker"], config="nowhere.toml"), "nowhere.toml"),
    ):
        with pytest.raises(indexer.IndexerError, match=re.escape(told)):
            call()  # type: ignore[no-untyped-call]
    assert Path("indexer.db").read_bytes() == before


def test_rows_of_one_snapshot_until_refreshed(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "indexer.db"
    path.write_bytes((folder / "indexer.db").read_bytes())
    with indexer.open(path) as book:
        count = len(list(book.positions()))
        with Store(path) as store, store.transaction() as conn:  # nothing of the reader is in its way
            conn.execute(
                "delete from positions where (deployment, account) in (select deployment, account from positions limit 1)"
            )
        assert len(list(book.positions())) == count
        book.refresh()
        assert len(list(book.positions())) == count - 1


def test_a_folder_of_files_answers_as_one(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "devnet.db").write_bytes((folder / "indexer.db").read_bytes())
    sql = "select status, count(*) as n from positions group by status order by 1"
    with indexer.open(folder / "indexer.db") as one, indexer.open(tmp_path) as all_of_them:
        for book in (one, all_of_them):
            book.refresh()
        assert list(all_of_them.at_risk(below=2)) == list(one.at_risk(below=2)) != []
        whom = next(one.at_risk()).wallet
        assert all_of_them.wallet(whom).positions == one.wallet(whom).positions != ()
        assert all_of_them.wallet(whom).liquidation_prices() == one.wallet(whom).liquidation_prices()
        assert list(all_of_them.sql(sql)) == list(one.sql(sql))
        shocks = {"eth": -0.2}
        assert all_of_them.simulate(shocks=shocks).positions == one.simulate(shocks=shocks).positions != ()


# the chain ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def market(needs_node: None) -> Iterator[AaveV3]:
    with Anvil() as node:
        node.place_multicall3()
        market = aave_v3.deploy(node, "3.6")
        market.populate(seed=1, users=8)
        yield market


def test_a_chain_is_synced_and_asked_as_by_the_command(
    market: AaveV3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("indexer.toml").write_text(config_toml(CHAIN_ID, market.node.url, [market]))
    with indexer.connect("devnet") as chain:
        outcome = chain.sync(deployments=[market.name], supplies=True)
        assert (chain.chain_id, outcome.deployments, outcome.failed) == (CHAIN_ID, (market.name,), {})
        assert outcome.block.hash == market.node.rpc("eth_getBlockByNumber", hex(outcome.block.number), False)["hash"]
        assert outcome.waiting == 0
        with indexer.open() as book:
            stored = {p.account: p for p in book.positions()}
            assert len(stored) == outcome.positions
            assert set(market.borrowers) <= set(stored)
            for who in sorted(market.borrowers)[:3]:
                live, kept = chain.wallet(who, to=str(outcome.block.number)), book.wallet(who)
                assert live.positions == kept.positions != ()
                assert live.liquidation_prices() == kept.liquidation_prices()
                shown = printed("show", "--live", "--chain", "devnet", who)
                same(
                    (p.as_row() for p in live.positions),
                    [{n: r[n] for n in (*POSITION_COLUMNS, "balances")} for r in shown],
                )


# the contract ---------------------------------------------------------------------------------------------------------


def signatures() -> dict[str, Any]:
    """By name, the signature or the fields, members and base classes of everything that `import indexer` promises."""
    package = griffe.load("indexer", search_paths=[ROOT], resolve_aliases=False)
    modules: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for name in indexer.__all__:
        if name == "__version__":
            found[name] = "str"
            continue
        value = getattr(indexer, name)
        if value.__module__ not in modules:
            modules[value.__module__] = package[value.__module__.removeprefix("indexer.")]
        found[name] = told(modules[value.__module__][value.__name__])
    return found


def told(thing: Any) -> Any:
    if thing.is_class:
        members = {
            name: told(member)
            for name, member in thing.members.items()
            if not name.startswith("_") or name == "__init__"
        }
        return {"bases": [str(base) for base in thing.bases], **members}
    if thing.is_attribute:
        return str(thing.annotation)
    parameters = ", ".join(
        f"{p.name}: {p.annotation}{'' if p.default is None else f' = {p.default}'} [{p.kind.value if p.kind else ''}]"
        for p in thing.parameters
    )
    return f"({parameters}) -> {thing.returns}"


@pytest.mark.slow
def test_the_contract_is_what_was_promised() -> None:
    """`UPDATE=1 pytest tests/test_api.py -k contract` writes it anew: say in CHANGELOG.md what changes for whom."""
    found = json.dumps(signatures(), indent=1, sort_keys=True) + "\n"
    if os.environ.get("UPDATE"):
        CONTRACT.write_text(found)
    assert CONTRACT.read_text() == found, "tests/api.json differs: a change of the API needs a CHANGELOG line"


def test_every_promised_name_is_there_and_documented() -> None:
    for name in indexer.__all__:
        assert isinstance(indexer.__version__, str) if name == "__version__" else getattr(indexer, name).__doc__
    assert dir(indexer) == sorted(indexer.__all__)


def test_the_page_names_what_answers_for_each_command() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.+) \|$", page, re.MULTILINE))
    assert [*rows] == sorted(VERBS)
    named = {name for told in rows.values() for name in re.findall(r"`((?:Book|Connection)\.\w+)", told)}
    assert all(hasattr(getattr(indexer, kind), name) for kind, _, name in (one.partition(".") for one in named))
    lists = {name for name in vars(indexer.Book) if not name.startswith("_")} - {"close", "refresh"}
    assert {f"Book.{name}" for name in lists} <= named, "a list that stands beside no command"


@pytest.mark.slow
def test_importing_it_imports_nothing_slow_and_prints_nothing(folder: Path) -> None:
    code = (
        "import sys, indexer; "
        "slow = {'numpy', 'web3', 'pandas', 'pydantic', 'click', 'sqlite3'} & set(sys.modules); assert not slow, slow; "
        "book = indexer.open('indexer.db'); list(book.at_risk()); "
        "slow = {'numpy', 'web3', 'pandas', 'pydantic', 'click', 'rich'} & set(sys.modules); assert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_a_program_that_uses_it_passes_mypy(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "from fractions import Fraction\n\nimport indexer\n\n\n"
        "def main() -> list[tuple[str, int | None, Fraction | None, float | None, int]]:\n"
        "    with indexer.open('indexer.db') as book:\n"
        "        what_if = book.simulate(shocks={'WETH': -0.2}, days=30)\n"
        "        assert_type: list[indexer.SimulatedAsset] = what_if.by_asset()\n"
        "        print(len(assert_type), book.wallet('0x12').to_reach(1.5)[0].amount_raw + 1)\n"
        "        return [\n"
        "            (p.wallet, p.health_factor_raw, p.health_factor_exact, p.debt_usd, p.block.number)\n"
        "            for p in book.at_risk(below=1.05, min_debt=10_000)\n"
        "        ]\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "program.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "MYPYPATH": str(ROOT), "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache" / "api")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
