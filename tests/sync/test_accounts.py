"""Accounts that a file names: read from the real contracts, proven complete by their totals, or told not to be."""

import csv
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from indexer.chain.client import Chain
from indexer.cli.main import main
from indexer.errors import ConfigError
from indexer.model import Accounts
from indexer.snapshot.tracked import TrackedDeployment
from indexer.store.store import Store
from indexer.sync import sync as sync_module
from indexer.sync.missing_logs import MissingLogs
from indexer.sync.sync import Sync
from indexer.transfer.accounts_file import of_parquet
from tests.devnet import aave_v3
from tests.devnet.node import CHAIN_ID, MULTICALL3
from tests.devnet.scenario import Devnet, config_toml
from tests.devnet.worlds import every_protocol, rewound
from tests.faulty import FaultyNode
from tests.memory import peak
from tests.truth import adapter_of, raw, rows_of, wrong_rows

INVENTED = [f"0x{n:040x}" for n in (0, 1, 2**160 - 1, 0xABCDEF)]


@pytest.fixture(scope="module")
def populated(needs_node: None) -> Iterator[list[Devnet]]:
    with every_protocol(8, 12) as found:
        yield found


@pytest.fixture
def markets(populated: list[Devnet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Devnet]]:
    """The markets, in a folder of the test's own whose configuration names them."""
    monkeypatch.chdir(tmp_path)
    Path("indexer.toml").write_text(config_toml(CHAIN_ID, populated[0].node.url, populated))
    with rewound(populated):
        yield populated


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [*arguments])
    assert result.exit_code == code, result.output
    return result


def told(database: str = "indexer.db") -> dict[str, dict[str, Any]]:
    """`indexer status` by deployment."""
    return {row["deployment"]: row for row in json.loads(run("--db", database, "status").stdout)}


def debts(market: Devnet, database: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """Who owes, with the digits of the row but for the block that it was written at."""
    rows = rows_of(Path(database), market.name)
    return {
        key: tuple(row[name] for name in ("debt_value_raw", "collateral_value_raw", "health_factor_raw", "status"))
        for key, row in rows.items()
        if row["debt_value_raw"] != "0"
    }


def exported(markets: list[Devnet], name: str = "list.csv") -> list[dict[str, str]]:
    """A full back-fill of everyone who ever owed, and its list."""
    run("--db", "full.db", "sync", "--chain", "devnet")
    run("--db", "full.db", "accounts", "export", name)
    with Path(name).open(newline="") as stream:
        return list(csv.DictReader(stream))


def write_list(rows: list[dict[str, str]], name: str = "list.csv") -> None:
    with Path(name).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def with_invented(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The list with accounts that hold nothing, blocks that mean nothing, an ilk that the Vat does not know, and everyone
    under every other deployment, or another ilk, as well.
    """
    first = {row["deployment"]: row for row in rows}
    groups = {(row["deployment"], row["position_group"]): row for row in rows}
    invented = [{**row, "account": account} for row in first.values() for account in INVENTED]
    ilk = {**first["maker"], "account": INVENTED[1], "position_group": "NOBODYS-Z"}
    wrong = [{**place, "account": row["account"]} for row in rows for place in groups.values()]
    return [{**row, "first_block": "999999999", "last_block": "1"} for row in (*reversed(rows), *invented, ilk, *wrong)]


def owing(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The list without those who owe nothing by now, not even the smallest unit, which is worth 0.

    A Comet's totals of collateral prove too, so there whoever holds some stays.
    """
    found = (
        "select distinct deployment, account, position_group from balances "
        "where side = 'debt' and scaled_raw <> '0' or deployment like 'compound-v3%'"
    )
    owed = set(raw(Path("full.db"), found))
    return [row for row in rows if (row["deployment"], row["account"], row["position_group"]) in owed]


@pytest.mark.parametrize("chosen", [list, owing], ids=["everyone", "who owes"])
def test_a_list_with_wrong_and_invented_entries_leads_to_the_debts_of_a_full_back_fill(
    markets: list[Devnet], chosen: Callable[[list[dict[str, str]]], list[dict[str, str]]]
) -> None:
    rows = exported(markets)
    write_list(with_invented(chosen(rows)))
    assert len(owing(rows)) < len(rows)
    run("accounts", "import", "list.csv")
    run("sync", "--chain", "devnet", "--no-history")
    full = told("full.db")
    for name, row in told().items():
        assert full[name]["coverage"] == "history"
        if name == "aave-v2-devnet":  # what is owed at stable rates adds up to nothing that a contract keeps
            assert (row["coverage"], row["state"]) == ("partial", "incomplete")
            assert "stable debt of" in row["note"]
        else:
            assert (row["coverage"], row["state"]) == ("sums", "ok"), row["note"]
    for market in markets:
        assert debts(market, "indexer.db") == debts(market, "full.db")
        assert len(debts(market, "full.db")) > 2
        assert not set(INVENTED) & {account for account, _ in rows_of(Path("indexer.db"), market.name)}
    assert wrong_rows(Path("indexer.db"), markets[0].node, markets)[1] == []
    assert raw(Path("indexer.db"), "select count(*) from imported") == [(0,)]
    assert raw(Path("indexer.db"), "select * from markets where position_group = 'NOBODYS-Z'") == []


@pytest.mark.parametrize("protocol", ["aave-v3", "compound-v2", "compound-v3", "maker"])
def test_a_debtor_that_is_missing_is_noticed_there_and_nowhere_else(markets: list[Devnet], protocol: str) -> None:
    rows = exported(markets)
    (name,) = [market.name for market in markets if market.protocol == protocol]
    owed = {
        (account, group): int(row["debt_value_raw"])
        for (account, group), row in rows_of(Path("full.db"), name).items()
        if row["debt_value_raw"] != "0" and (protocol != "maker" or row["owner_via"] == "self")
    }
    missing = max(owed, key=lambda key: owed[key])
    write_list([r for r in rows if (r["deployment"], r["account"], r["position_group"]) != (name, *missing)])
    run("accounts", "import", "list.csv")
    run("sync", "--chain", "devnet", "--no-history")
    for other, row in told().items():
        if other == name:
            assert (row["coverage"], row["state"]) == ("partial", "incomplete"), row["note"]
            assert "the contract says" in row["note"]
        elif other != "aave-v2-devnet":
            assert (row["coverage"], row["state"]) == ("sums", "ok"), row["note"]
    assert missing not in rows_of(Path("indexer.db"), name)
    nobody = run("at-risk", "--min-debt", "1e15", "--protocol", protocol, "--max-age", "9999d", code=1)
    assert f"{name} is incomplete" in nobody.stderr


def test_the_history_goes_on_behind_a_list_and_ends_in_the_same_rows(markets: list[Devnet]) -> None:
    rows = exported(markets)
    write_list(with_invented(rows[::2]))
    run("accounts", "import", "list.csv")
    early = run("sync", "--chain", "devnet").stderr
    assert "usable now, at block" in early
    assert {row["coverage"] for row in told().values()} == {"history"}
    for market in markets:
        assert rows_of(Path("indexer.db"), market.name).keys() == rows_of(Path("full.db"), market.name).keys()
        assert debts(market, "indexer.db") == debts(market, "full.db")


def test_whoever_begins_to_owe_behind_a_list_is_found_without_the_history(markets: list[Devnet]) -> None:
    aave = markets[0]
    assert isinstance(aave, aave_v3.AaveV3)
    exported([aave])
    run("accounts", "import", "list.csv", "--deployment", aave.name)
    sync = ("sync", "--deployment", aave.name, "--no-history")
    run(*sync)
    for _ in range(3):
        aave.step(5)
        aave.node.mine(2)
    run(*sync)
    run("--db", "again.db", "sync", "--deployment", aave.name)
    assert debts(aave, "indexer.db") == debts(aave, "again.db")
    assert told()[aave.name]["coverage"] == "sums"
    assert wrong_rows(Path("indexer.db"), aave.node, [aave])[1] == []


def test_a_parquet_list_is_read_as_the_csv_of_it(markets: list[Devnet]) -> None:
    rows = exported(markets)
    run("--db", "full.db", "accounts", "export", "list.parquet")
    table = parquet.read_table("list.parquet").to_pylist()
    assert [{name: str(value) for name, value in row.items()} for row in table] == rows
    run("accounts", "import", "list.parquet")
    one, other = ("select * from imported order by 1, 2, 3, 4",) * 2
    stored = raw(Path("indexer.db"), one)
    run("--db", "other.db", "accounts", "import", "list.csv")
    assert raw(Path("other.db"), other) == stored
    assert len(stored) == len(rows)


def test_maker_needs_no_list_as_its_vaults_are_numbered(markets: list[Devnet]) -> None:
    (vaults,) = [market for market in markets if market.protocol == "maker"]
    run("--db", "full.db", "sync", "--deployment", vaults.name)
    run("sync", "--deployment", vaults.name, "--no-history")
    numbered = {
        key for key, row in rows_of(Path("full.db"), vaults.name).items() if row["owner_via"].startswith("cdp-manager")
    }
    known = rows_of(Path("indexer.db"), vaults.name).keys()
    assert numbered & debts(vaults, "full.db").keys() <= known
    raw_urns = debts(vaults, "full.db").keys() - known
    assert told()[vaults.name]["coverage"] == ("partial" if raw_urns else "sums")
    refused = run("--db", "no.db", "sync", "--deployment", markets[0].name, "--no-history", code=1)
    assert "import accounts with `indexer accounts import FILE`" in refused.stderr


def test_an_import_that_is_killed_while_it_reads_goes_on(
    markets: list[Devnet], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_list(with_invented(exported(markets)))
    run("accounts", "import", "list.csv")
    keep, calls = TrackedDeployment.keep_positions, []

    def interrupted(*arguments: Any) -> None:
        keep(*arguments)
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrackedDeployment, "keep_positions", interrupted)
    run("sync", "--chain", "devnet", "--no-history", code=130)
    monkeypatch.setattr(TrackedDeployment, "keep_positions", keep)
    run("sync", "--chain", "devnet", "--no-history")
    for market in markets:
        assert debts(market, "indexer.db") == debts(market, "full.db")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("account\n0x12\n", "line 2"),
        ("deployment,account\naave-v3-6-devnet,0x" + "1" * 40 + "\naave-v3-6-devnet,nobody\n", "line 3"),
        ("deployment,account\nelsewhere,0x" + "1" * 40 + "\n", "line 2: unknown deployment 'elsewhere'"),
        ("chain,deployment,account\nmainnet,{aave},0x" + "1" * 40 + "\n", "line 2: {aave} is on devnet"),
        ("chain_id,deployment,account\n1,{aave},0x" + "1" * 40 + "\n", "not on '1'"),
        ("deployment,account,position_group\n{aave},0x" + "1" * 40 + ",ETH-A\n", "have no group"),
        ("deployment,account\nmaker,0x" + "1" * 40 + "\n", "need a position_group such as ETH-A"),
        ("deployment,account,ilk\nmaker,0x" + "1" * 40 + ",Ü-A\n", "need a position_group"),
        ("name,label\na,b\n", "line 1: the header must have a column account"),
        ("account,wallet\na,b\n", "line 1: two columns mean account"),
        ("deployment,account\n{aave},0x" + "1" * 40 + ",more\n", "line 2: 3 cells"),
        ("account\n" + "x" * 70_000, "line 2: longer than"),
        ("account\n0x" + "1" * 40 + "\n", "line 2: says of no deployment"),
        ("", "no account in it"),
        ("account\n\udcff\udcfe\n", "no text in UTF-8"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named_and_nothing_is_changed(markets: list[Devnet], text: str, message: str) -> None:
    write_list([{"deployment": markets[0].name, "account": "0x" + "2" * 40}], "before.csv")
    run("accounts", "import", "before.csv")
    before = raw(Path("indexer.db"), "select * from imported"), raw(Path("indexer.db"), "select * from deployments")
    Path("bad.csv").write_bytes(text.replace("{aave}", markets[0].name).encode(errors="surrogateescape"))
    refused = run("accounts", "import", "bad.csv", code=2)
    assert message.replace("{aave}", markets[0].name) in refused.stderr
    after = raw(Path("indexer.db"), "select * from imported"), raw(Path("indexer.db"), "select * from deployments")
    assert after == before


def test_a_list_of_bare_addresses_is_of_the_deployment_that_is_named(markets: list[Devnet]) -> None:
    Path("bare.txt").write_text("# from a friend\n0x" + "1" * 40 + "\n\n0x" + "1" * 40 + "\n")
    run("accounts", "import", "bare.txt", "--deployment", markets[0].name)
    assert raw(Path("indexer.db"), "select deployment, account, position_group from imported") == [
        (markets[0].name, "0x" + "1" * 40, "")
    ]
    assert run("accounts", "import", "bare.txt", "--deployment", "nowhere", code=2)


def test_rows_of_other_chains_and_deployments_are_left_out_where_some_are_chosen(markets: list[Devnet]) -> None:
    rows = exported(markets)
    chosen = run("accounts", "import", "list.csv", "--deployment", markets[0].name).stderr
    assert "are of other deployments and left out" in chosen
    assert {name for (name,) in raw(Path("indexer.db"), "select deployment from imported")} == {markets[0].name}
    assert len({row["deployment"] for row in rows}) == 5


def refuse_huge() -> None:
    with pytest.raises(ConfigError):
        next(of_parquet(Path("huge.parquet")))


def test_a_parquet_that_repeats_a_huge_text_costs_no_memory_and_no_file_is_believed_in_its_size(
    markets: list[Devnet], monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = pa.DictionaryArray.from_arrays(pa.array([0] * 5_000), ["0x" + "1" * 10_000_000])
    written = {"compression": "zstd", "dictionary_pagesize_limit": 2**25}
    parquet.write_table(pa.table({"account": huge}), "huge.parquet", **written)
    refused = run("accounts", "import", "huge.parquet", "--deployment", markets[0].name, code=2)
    assert "row 1: a cell of 10000002 characters" in refused.stderr
    assert peak(refuse_huge) < 100 * 2**20
    Path("no.parquet").write_bytes(b"PAR1 nothing PAR1")
    assert "no Parquet that can be read" in run("accounts", "import", "no.parquet", code=2).stderr
    monkeypatch.setattr("indexer.transfer.accounts_file.MOST_ROWS", 1)
    Path("two.csv").write_text("account\n" + "".join(f"0x{n:040x}\n" for n in (1, 2)))
    assert "more than 1 rows" in run("accounts", "import", "two.csv", "--deployment", markets[0].name, code=2).stderr
    monkeypatch.setattr("indexer.transfer.accounts_file.LARGEST_FILE", 10)
    assert "larger than" in run("accounts", "import", "two.csv", code=2).stderr
    assert not Path("indexer.db").exists()


@pytest.mark.disturbed
def test_each_deployment_is_usable_as_soon_as_its_own_logs_are_there(
    markets: list[Devnet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest blocks come first, so that who began last is complete first; a second run goes on from there."""
    with FaultyNode(markets[0].node.url, seed=1) as node:
        node.range_cap = 20
        Path("indexer.toml").write_text(config_toml(CHAIN_ID, node.url, markets))
        save, calls = MissingLogs._save_chunk, []

        def interrupted(*arguments: Any) -> None:
            save(*arguments)
            calls.append(1)
            if len(calls) == 40:
                raise KeyboardInterrupt

        monkeypatch.setattr(MissingLogs, "_save_chunk", interrupted)
        run("sync", "--chain", "devnet", code=130)
        stopped = told()
        complete = {name for name, row in stopped.items() if row["block_number"] is not None}
        assert complete
        assert complete < stopped.keys()
        assert {stopped[name]["percent"] for name in complete} == {100}
        assert min(stopped[name]["percent"] for name in stopped.keys() - complete) < 100
        listed = run("at-risk", "--max-age", "9999d", code=3).stderr
        assert all(f"{name} 100 %" in listed for name in complete)
        monkeypatch.setattr(MissingLogs, "_save_chunk", save)
        node.calls.clear()
        run("sync", "--chain", "devnet")
        assert {row["coverage"] for row in told().values()} == {"history"}
        assert len({row["block_number"] for row in told().values()}) == 1
        run("--db", "full.db", "sync", "--chain", "devnet")
    for market in markets:
        assert debts(market, "indexer.db") == debts(market, "full.db")


def test_a_tail_goes_on_with_the_history_between_two_blocks(
    markets: list[Devnet], monkeypatch: pytest.MonkeyPatch
) -> None:
    aave = markets[0]
    exported([aave])
    run("accounts", "import", "list.csv", "--deployment", aave.name)
    monkeypatch.setattr(sync_module, "HISTORY_SECONDS", -1.0)  # no time at all
    seen = []
    with closing(Chain("devnet", CHAIN_ID, [aave.node.url], MULTICALL3)) as chain, Store("indexer.db") as store:
        sync = Sync(store, chain, [adapter_of(aave)], Accounts.BORROWERS)
        sync.following = True
        sync.snapshot()
        seen.append(told()[aave.name]["coverage"])
        monkeypatch.setattr(sync_module, "HISTORY_SECONDS", 60.0)
        aave.node.mine(1)
        sync.snapshot()
        seen.append(told()[aave.name]["coverage"])
    assert seen == ["sums", "history"]
    assert wrong_rows(Path("indexer.db"), aave.node, [aave])[1] == []


def test_an_exit_code_believes_what_the_sums_prove(markets: list[Devnet]) -> None:
    """With all accounts a list lacks suppliers: incomplete, but nobody who owes is missing."""
    aave = markets[0]
    exported([aave])
    run("accounts", "import", "list.csv", "--deployment", aave.name)
    run("sync", "--deployment", aave.name, "--accounts", "all", "--no-history")
    assert (told()[aave.name]["state"], told()[aave.name]["coverage"]) == ("incomplete", "sums")
    nobody = ("at-risk", "--min-debt", "1e15", "--max-age", "9999d")
    run(*nobody)
    with closing(sqlite3.connect("indexer.db")) as conn, conn:
        conn.execute("update deployments set coverage = 'partial'")
    run(*nobody, code=1)
