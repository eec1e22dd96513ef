"""Reading the database: a wallet by any of its addresses, and the state of a sync."""

from pathlib import Path

import pytest

from indexer.queries import queries
from indexer.store.database import open_readonly
from indexer.store.store import Store

WALLET, OWNER, URN = ("0x" + digit * 40 for digit in "abc")


@pytest.fixture
def conn(tmp_path: Path):
    """A database with one vault: a urn of a proxy of a wallet."""
    path = tmp_path / "indexer.db"
    with Store(path) as store, store.transaction() as db:
        db.execute(
            "insert into positions (chain_id, deployment, protocol, account, position_group, owner, owner_via, wallet,"
            " debt_usd, status, block_number, block_hash)"
            " values (1, 'maker', 'maker', ?, 'ETH-A', ?, 'cdp-manager+ds-proxy', ?, 5.0, 'unpriceable', 7, '0x00')",
            (URN, OWNER, WALLET),
        )
        db.execute(
            "insert into balances values (1, 'maker', ?, 'ETH-A', '0xaa', '0xbb', 'DAI', 'debt', '1', '1', 1e-18, 5.0, 1, 7)",
            (URN,),
        )
        for deployment, block in (("maker", 7), ("aave-v2", None)):
            db.execute(
                "insert into deployments (chain_id, deployment, protocol, accounts, block_number, block_timestamp, state)"
                " values (1, ?, 'p', 'all', ?, ?, 'ok')",
                (deployment, block, block and 1_000),
            )
    connection = open_readonly(path)
    yield connection
    connection.close()


@pytest.mark.parametrize("address", [WALLET, OWNER, URN, WALLET.upper().replace("X", "x")])
def test_a_wallet_is_found_by_itself_its_proxy_and_its_account(conn, address):
    (position,) = queries.wallets(conn, [address])
    assert (position["account"], position["wallet"]) == (URN, WALLET)
    assert [balance["symbol"] for balance in position["balances"]] == ["DAI"]


def test_a_stranger_has_nothing(conn):
    assert queries.wallets(conn, ["0x" + "d" * 40]) == []


def test_status_names_the_chain_and_the_age_of_the_block(conn):
    never, maker = queries.status(conn, {1: "mainnet"}.__getitem__, now=1_090.5)
    assert (maker["chain"], maker["deployment"], maker["age_seconds"], maker["positions"]) == (
        "mainnet",
        "maker",
        90,
        1,
    )
    assert (never["deployment"], never["block_number"], never["age_seconds"]) == ("aave-v2", None, None)


def test_what_no_list_can_judge_is_counted(conn):
    assert queries.unlisted(conn, 1.1) == [("unpriceable", 1, 0, "unknown before the next sync")]


def test_repeated_column_names_stay_apart():
    assert queries.unique(["a", "b", "a", "a_2", "a"]) == ["a", "b", "a_2", "a_2_2", "a_3"]
