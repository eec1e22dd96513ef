"""The tables of watches, of price rules and of what cannot be seen: all SQL of this package, in rows as they are stored.

What rules mean and remember is known by the modules that call these functions.
"""

import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Any

Where = tuple[int, str, str, str, str]
HERE = "chain_id = ? and deployment = ? and account = ? and position_group = ? and wallet = ?"


def dicts(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


# watched wallets ------------------------------------------------------------------------------------------------------


def watched(conn: sqlite3.Connection) -> list[tuple[str, str | None, str | None]]:
    """(wallet, label, ENS name) of every watched wallet, by address."""
    return conn.execute("select wallet, label, ens from watches order by wallet").fetchall()


def rules_of_wallets(conn: sqlite3.Connection) -> list[tuple[str, str]]:
    """(wallet, rule) of every wallet with rules of its own."""
    return conn.execute("select wallet, rule from watch_rules").fetchall()


def groups_of_wallets(conn: sqlite3.Connection) -> list[tuple[str, str]]:
    """(wallet, group), by group."""
    return conn.execute("select wallet, name from watch_groups order by name").fetchall()


def save_watch(conn: sqlite3.Connection, wallet: str, label: str | None, ens: str | None) -> bool:
    """Watches a wallet, which keeps the label and the name that it is not given; returns whether it is new."""
    known = conn.execute("select 1 from watches where wallet = ?", (wallet,)).fetchone()
    conn.execute(
        "insert into watches values (?, ?, ?, ?) on conflict do update set "
        "label = coalesce(excluded.label, label), ens = coalesce(excluded.ens, ens)",
        (wallet, label, ens, int(time.time())),
    )
    return known is None


def replace_rules(conn: sqlite3.Connection, wallet: str, rules: Iterable[str]) -> None:
    """Gives a wallet these rules instead of its own. Evidence: the user's word; adding the old ones undoes it."""
    conn.execute("delete from watch_rules where wallet = ?", (wallet,))
    conn.executemany("insert or ignore into watch_rules values (?, ?)", [(wallet, rule) for rule in rules])


def replace_groups(conn: sqlite3.Connection, wallet: str, groups: Iterable[str]) -> None:
    """Gives a wallet these groups instead of its own. Evidence: the user's word; adding the old ones undoes it."""
    conn.execute("delete from watch_groups where wallet = ?", (wallet,))
    conn.executemany("insert or ignore into watch_groups values (?, ?)", [(name, wallet) for name in groups])


def remove_watch(conn: sqlite3.Connection, wallet: str) -> bool:
    """Forgets a wallet with its rules, groups and what they remember; False if it is not watched.

    Evidence: the user names it. Undone by `watch add` with the same rules, which begin anew.
    """
    if not conn.execute("delete from watches where wallet = ?", (wallet,)).rowcount:
        return False
    conn.execute("delete from watch_rules where wallet = ?", (wallet,))
    conn.execute("delete from watch_groups where wallet = ?", (wallet,))
    conn.execute("delete from watch_states where wallet = ?", (wallet,))
    return True


def positions_of_watched(conn: sqlite3.Connection) -> list[dict[str, Any]]:
    """One row per position of a watched wallet, one for a wallet without any; `open` names the rules that are crossed."""
    return dicts(
        conn.execute(
            "select w.wallet, w.label, w.ens, "
            "(select group_concat(name, ', ') from (select name from watch_groups g where g.wallet = w.wallet order by name)) "
            "as groups, p.chain_id, p.deployment, p.protocol, p.account, p.position_group, "
            "p.health_factor_raw, p.health_factor, p.debt_usd, p.collateral_usd, p.status, p.block_number, "
            "strftime('%Y-%m-%dT%H:%M:%SZ', d.block_timestamp, 'unixepoch') as block_time, d.block_timestamp, "
            "(select group_concat(s.rule, ', ') from watch_states s where s.open and s.wallet = w.wallet "
            " and s.chain_id = p.chain_id and s.deployment = p.deployment and s.account = p.account "
            " and s.position_group = p.position_group) as open, "
            "(select count(distinct number) from alerts a join deliveries d using (number) where a.wallet = w.wallet "
            " and a.chain_id = p.chain_id and a.deployment = p.deployment and a.account = p.account "
            " and a.position_group = p.position_group and (d.state = 'refused' or d.short and d.state <> 'delivered')) "
            " as alerts_refused "
            "from watches w left join positions p on w.wallet in (p.wallet, p.owner, p.account) "
            "left join deployments d using (chain_id, deployment) "
            "order by w.wallet, p.chain_id, p.deployment, p.account, p.position_group"
        )
    )


def open_crossings(conn: sqlite3.Connection, chain_id: int) -> int:
    """How many crossings on a chain have not ended."""
    found: tuple[int] = conn.execute(
        "select (select count(*) from watch_states where chain_id = ?1 and open) "
        "+ (select count(*) from price_states where chain_id = ?1 and open)",
        (chain_id,),
    ).fetchone()
    return found[0]


# what rules remember of positions -------------------------------------------------------------------------------------


def states_at(conn: sqlite3.Connection, where: Where) -> list[tuple[Any, ...]]:
    """(rule, armed, open, crossing, reference, crossed, health factor) of each rule of a wallet at one position."""
    return conn.execute(
        "select rule, armed, open, crossing, reference_raw, crossed_raw, health_factor_raw "  # noqa: S608 - our own names
        f"from watch_states where {HERE}",
        where,
    ).fetchall()


def last_crossing(conn: sqlite3.Connection, where: Where, rule: str) -> int:
    """The number of the last crossing of which an alert told, also under an earlier watch; 0 without any."""
    sql = f"select coalesce(max(crossing), 0) from alerts where {HERE} and rule = ?"  # noqa: S608 - our own names
    found: tuple[int] = conn.execute(sql, (*where, rule)).fetchone()
    return found[0]


def replace_states(conn: sqlite3.Connection, where: Where, states: Iterable[Sequence[Any]]) -> None:
    """Writes the state of every rule of a wallet at a position, and forgets rules that are not among them.

    Evidence: the rules of the watch as the user set them. A rule that is set again begins anew.
    """
    conn.execute(f"delete from watch_states where {HERE}", where)  # noqa: S608 - our own names
    conn.executemany(
        "insert into watch_states values (?,?,?,?,?,?,?,?,?,?,?,?,?)", [(*where, *state) for state in states]
    )


def all_states(conn: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """Everything that rules remember: a plan is made from it, and is carried out only if it is still the same."""
    return conn.execute(
        "select * from watch_states order by chain_id, deployment, account, position_group, wallet, rule"
    ).fetchall()


def stored_prices(
    conn: sqlite3.Connection, chain_id: int, deployment: str
) -> dict[tuple[str, str, str], tuple[int | None, float | None]]:
    """(asset, its market, group) -> the price at the stored snapshot, raw and in USD."""
    return {
        (asset, market, group): (None if price is None else int(price), usd)
        for asset, market, group, price, usd in conn.execute(
            "select asset, market, position_group, price_raw, price_usd from markets "
            "where chain_id = ? and deployment = ?",
            (chain_id, deployment),
        )
    }


# price rules ----------------------------------------------------------------------------------------------------------


def price_rules(conn: sqlite3.Connection) -> list[str]:
    return [rule for (rule,) in conn.execute("select rule from price_rules order by rule")]


def price_states(conn: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """Everything that price rules remember."""
    return conn.execute("select * from price_states order by chain_id, rule").fetchall()


def known_assets(conn: sqlite3.Connection) -> list[tuple[str, str]]:
    """(symbol, address) of every asset of a synced market."""
    return conn.execute("select distinct symbol, asset from markets").fetchall()


def add_price_rule(conn: sqlite3.Connection, rule: str, asset: str, threshold_raw: int, threshold_usd: float) -> None:
    """Adds a rule unless it is there."""
    conn.execute(
        "insert or ignore into price_rules values (?, ?, ?, ?, ?)",
        (rule, asset, str(threshold_raw), threshold_usd, int(time.time())),
    )


def remove_price_rule(conn: sqlite3.Connection, rule: str) -> bool:
    """Forgets a rule and what it remembers; False if there is none.

    Evidence: the user names it. Undone by `watch add --price`; what it remembered begins anew.
    """
    if not conn.execute("delete from price_rules where rule = ?", (rule,)).rowcount:
        return False
    conn.execute("delete from price_states where rule = ?", (rule,))
    return True


def judged_price_rules(conn: sqlite3.Connection) -> list[dict[str, Any]]:
    """One row a rule and chain on which it was judged; one for a rule that was judged nowhere yet."""
    return dicts(
        conn.execute(
            "select r.rule, s.chain_id, (select max(chain) from deployments d where d.chain_id = s.chain_id) as chain, "
            "s.price_usd, s.open, s.crossing, s.block_number from price_rules r left join price_states s using (rule) "
            "order by r.rule, s.chain_id"
        )
    )


def stored_usd_prices(conn: sqlite3.Connection, chain_id: int) -> list[tuple[str, str, str, float]]:
    """(deployment, symbol, asset, USD) of everything on a chain that has a price in USD."""
    return conn.execute(
        "select deployment, symbol, asset, price_usd from markets where chain_id = ? and price_usd is not null",
        (chain_id,),
    ).fetchall()


def last_price_crossing(conn: sqlite3.Connection, rule: str) -> int:
    """Crossings of a rule that was removed and is back count on."""
    sql = "select coalesce(max(crossing), 0) from alerts where kind = 'price' and rule = ?"
    found: tuple[int] = conn.execute(sql, (rule,)).fetchone()
    return found[0]


def save_price_states(conn: sqlite3.Connection, states: Iterable[Sequence[Any]]) -> None:
    conn.executemany("insert or replace into price_states values (?, ?, ?, ?, ?, ?, ?)", states)


def forget_unwatched(conn: sqlite3.Connection, _snapshots: object, _block: object) -> None:
    """Rules forget whom nobody watches any more; one that is watched again begins anew.

    Evidence: the user has removed them from a folder's list, where `watch remove` does not reach the file of a chain.
    """
    conn.execute("delete from watch_states where wallet not in (select wallet from watches)")
    conn.execute("delete from price_states where rule not in (select rule from price_rules)")


# what cannot be seen --------------------------------------------------------------------------------------------------


def newest_rows(conn: sqlite3.Connection, chain_id: int) -> list[tuple[Any, ...]]:
    """(deployment, block, its hash, its time, note) of a chain's deployments."""
    return conn.execute(
        "select deployment, block_number, block_hash, block_timestamp, note from deployments where chain_id = ?",
        (chain_id,),
    ).fetchall()


def blind(conn: sqlite3.Connection, chain_id: int) -> dict[str, int]:
    """Deployment -> the number of its alert, of those that are said to be blind."""
    return dict(
        conn.execute("select deployment, crossing from blind_deployments where chain_id = ?", (chain_id,)).fetchall()
    )


def last_blind_crossing(conn: sqlite3.Connection, chain_id: int) -> int:
    sql = "select coalesce(max(crossing), 0) from alerts where kind = 'blind' and chain_id = ?"
    found: tuple[int] = conn.execute(sql, (chain_id,)).fetchone()
    return found[0]


def save_blind(conn: sqlite3.Connection, rows: Iterable[tuple[int, str, int, int]]) -> None:
    """Writes (chain id, deployment, number of the alert, since when)."""
    conn.executemany("insert into blind_deployments values (?, ?, ?, ?)", rows)


def remove_blind(conn: sqlite3.Connection, chain_id: int, deployments: Iterable[str]) -> None:
    """Ends that these are blind.

    Evidence: rows of a committed snapshot that are young by the clock; they are blind again when they grow old.
    """
    conn.executemany(
        "delete from blind_deployments where chain_id = ? and deployment = ?",
        [(chain_id, name) for name in deployments],
    )
