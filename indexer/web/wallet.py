"""The page of a wallet or of a person: everything that its report has, and sliders for the prices its health depends on."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request

from indexer.errors import ConfigError
from indexer.queries import queries as reading
from indexer.queries.desk import rules
from indexer.report.outlook import stored
from indexer.report.wallet import positions, wallet_report
from indexer.risk.simulate import OUTCOME_COLUMNS
from indexer.store.rows import POSITION_COLUMNS
from indexer.units import scaled
from indexer.web.asked import addresses_of, number, text_of
from indexer.web.band import band
from indexer.web.desk import Desk
from indexer.web.render import Shown, sections, table
from indexer.web.scenario import Assumed, computed, outcome_rows, sliders_of

TARGET = 1.5
#: how long a page may take that computes what liquidates each position
SECONDS = 20.0
WHAT_IF = "deployment position_group account status_before status_after health_factor_before health_factor_after debt_usd collateral_usd".split()


def of(request: Request) -> str:
    """Whom the address names: in its path, or from the search field in its query."""
    return str(request.path_params.get("whom") or text_of(request.query_params, "whom")).strip()


def shown(desk: Desk, request: Request) -> Shown:
    whom = of(request)
    with desk.read(SECONDS) as conn:
        above = band(conn, desk.session.db)
        watched = rules(conn)
        if not whom:
            return Shown("Wallet", "wallet_search.html", {"whom": "", "watched": watched, "problem": None}, above)
        try:
            wallets = addresses_of(conn, whom)
        except ConfigError as error:
            return Shown(
                "Wallet",
                "wallet_search.html",
                {"whom": whom, "watched": watched, "problem": str(error)},
                above,
                status=404,
            )
        rows = positions(conn, wallets)
        target = number(request.query_params, "target", 1, 1000) or TARGET
        report = None
        names: Sequence[str] = ()
        supposed: Sequence[Mapping[str, Any]] = ()
        assumed = Assumed.of(request.query_params)
        if rows:
            outlooks = stored(conn, desk.session.deployments(conn), wallets, scaled(target))
            report = wallet_report(conn, title(whom, wallets), rows, outlooks)
            names = sliders_of(conn, wallets)
            if assumed:
                with desk.alone():
                    supposed = outcome_rows(computed(desk, conn, assumed, wallets))
    context = {
        "whom": whom,
        "wallets": wallets,
        "label": next((row["label"] for row in watched if row["wallet"] in wallets and len(wallets) == 1), None),
        "target": target,
        "report": None if report is None else sections(report),
        "sliders": [(name, assumed.percent(name)) for name in names],
        "assumed": assumed,
        "supposed": table(
            "Health under these prices", WHAT_IF, supposed, key=("deployment", "position_group", "account")
        )
        if supposed
        else None,
        "explorers": explorers(desk, rows, wallets),
    }
    query = urlencode({name: value for name, value in request.query_params.multi_items() if name != "whom"})
    return Shown(
        title(whom, wallets), "wallet.html", context, above, twin=f"/wallet/{quote(whom, safe='')}.{{form}}?{query}"
    )


def title(whom: str, wallets: Sequence[str]) -> str:
    return (
        f"Wallet {wallets[0]}"
        if list(wallets) == [whom.lower()]
        else f"{whom} ({len(wallets)} wallet{'s' * (len(wallets) != 1)})"
    )


def explorers(desk: Desk, rows: Sequence[Mapping[str, Any]], wallets: Sequence[str]) -> list[tuple[str, str]]:
    """Chain and address of each wallet in a block explorer that the chain's own configuration names."""
    chains = {chain.chain_id: chain for chain in desk.session.config.chains.values() if chain.explorer}
    found = []
    for chain_id in sorted({row["chain_id"] for row in rows}):
        chain = chains.get(chain_id)
        if chain is not None and str(chain.explorer).startswith("https://"):
            found += [(chain.name, f"{str(chain.explorer).rstrip('/')}/address/{wallet}") for wallet in wallets]
    return found


def rows(desk: Desk, request: Request) -> tuple[Sequence[str], Iterable[Any]]:
    """The rows of `show`, without its outlook; with a scenario in the address, those of `simulate`."""
    with desk.read(SECONDS) as conn:
        wallets = addresses_of(conn, of(request))
        assumed = Assumed.of(request.query_params)
        if assumed:
            with desk.alone():
                return OUTCOME_COLUMNS, outcome_rows(computed(desk, conn, assumed, wallets))
        return POSITION_COLUMNS, reading.wallets(conn, wallets)
