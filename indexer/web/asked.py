"""What an address asks for: filters, sort order and place in a list, all in its query, so that a link carries them."""

import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from indexer.address import checked_address
from indexer.alert.watches import watches
from indexer.errors import ConfigError
from indexer.model import Status
from indexer.plugins import did_you_mean
from indexer.queries.known import deployments
from indexer.queries.paging import ORDERS, place
from indexer.queries.scope import Scope
from indexer.terminal.people import on_list

#: characters of a value in an address that is answered
LONGEST = 4_000


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of the list of who is at risk; every field that says nothing leaves all rows in."""

    wallet: str = ""
    protocol: str = ""
    deployment: str = ""
    status: str = ""
    below: float | None = None
    min_debt: float | None = None
    sort: str = "debt"
    after: str | None = None

    @classmethod
    def of(cls, query: QueryParams, conn: sqlite3.Connection) -> "Filters":
        """Reads an address. Raises `ConfigError` for a value that no row can have, as a typing error must not read as "nobody"."""
        rows = deployments(conn)
        found = cls(
            wallet=text_of(query, "wallet"),
            protocol=one_of(query, "protocol", sorted({row["protocol"] for row in rows})),
            deployment=one_of(query, "deployment", sorted({row["deployment"] for row in rows})),
            status=one_of(query, "status", [status.value for status in Status]),
            below=number(query, "below"),
            min_debt=number(query, "min_debt"),
            sort=one_of(query, "sort", list(ORDERS)) or "debt",
            after=text_of(query, "after") or None,
        )
        if found.wallet:
            addresses_of(conn, found.wallet)
        if found.after is not None:
            place(found.after, found.sort)
        return found

    def query(self, **changes: str | None) -> str:
        """The same as the query of an address, with these changes; a change of anything but the place begins anew."""
        new = replace(self, **({} if "after" in changes else {"after": None}), **changes)  # type: ignore[arg-type]
        given = {
            "wallet": new.wallet,
            "protocol": new.protocol,
            "deployment": new.deployment,
            "status": new.status,
            "below": "" if new.below is None else f"{new.below:.15g}",
            "min_debt": "" if new.min_debt is None else f"{new.min_debt:.15g}",
            "sort": "" if new.sort == "debt" else new.sort,
            "after": new.after or "",
        }
        return urlencode({name: value for name, value in given.items() if value})

    def scope(self, conn: sqlite3.Connection) -> Scope:
        return Scope(
            deployments=[self.deployment] if self.deployment else (),
            wallets=addresses_of(conn, self.wallet) if self.wallet else (),
        )

    @property
    def protocols(self) -> Sequence[str]:
        return [self.protocol] if self.protocol else ()

    @property
    def statuses(self) -> Sequence[str]:
        return [self.status] if self.status else ()


def text_of(query: QueryParams, name: str) -> str:
    """A value without the blanks around it, empty where there is none."""
    value = query.get(name, "").strip()
    if len(value) > LONGEST:
        raise ConfigError(f"{name}: a value of {len(value):,} characters is none that this page knows")
    return value


def one_of(query: QueryParams, name: str, known: Sequence[str]) -> str:
    value = text_of(query, name)
    if value and value not in known:
        raise ConfigError(f"{name}: nothing is called {value[:64]!r}{did_you_mean(value, known)}")
    return value


def number(query: QueryParams, name: str, least: float = 0.0, most: float = math.inf) -> float | None:
    """A finite number within the bounds, None where there is none."""
    value = text_of(query, name)
    if not value:
        return None
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not (math.isfinite(found) and least <= found <= most):
        bounds = f"from {least:g} on" if most == math.inf else f"from {least:g} to {most:g}"
        raise ConfigError(f"{name}: {value[:64]!r} is no number {bounds}")
    return found


def addresses_of(conn: sqlite3.Connection, text: str) -> list[str]:
    """The addresses behind an address, a label, a kept ENS name or a @group. Raises `ConfigError` for anything else.

    Nothing is asked of a node: an ENS name that is not on the watch list is unknown here.
    """
    try:
        return [checked_address(text)]
    except ValueError as error:
        if text[:2].lower() == "0x":
            raise ConfigError(str(error)) from error
    watched = watches(conn)
    found = on_list(text, watched)
    if found:
        return found
    names = [
        name for watch in watched for name in (watch.label, watch.ens, *(f"@{group}" for group in watch.groups)) if name
    ]
    raise ConfigError(
        f"{text[:64]!r} is neither an address (0x and 40 hex digits) nor a label, name or @group of the watch list"
        f"{did_you_mean(text, names)}"
    )
