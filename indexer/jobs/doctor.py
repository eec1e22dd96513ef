"""The verb `doctor`."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from indexer.errors import IndexerError
from indexer.terminal.options import Number, Session, session_of
from indexer.text.table import folded
from indexer.text.values import printable

if TYPE_CHECKING:
    from indexer.config import ChainConfig, Config
    from indexer.doctor.finding import Finding

WIDTH = 80
ALL = "all"
#: chains that are examined at once
AT_ONCE = 8


@click.command(
    short_help="Examine the endpoints of a chain, recommend its settings.",
    epilog="\b\nExamples:\n  indexer doctor\n  indexer doctor --json --output chain.toml",
)
@click.option("--chain", metavar="NAME|all", help="The chain to examine, or every one.  [default: mainnet]")
@click.option("--rpc-url", "rpc_urls", multiple=True, metavar="URL", help="Examine this endpoint instead; repeatable.")
@click.option(
    "--max-requests-per-second",
    type=Number(min=0, min_open=True),
    metavar="N",
    help="Spare the endpoints; each call of a JSON-RPC batch counts.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings and tables as JSON.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the recommended tables to this file, which must not exist.",
)
@session_of
def doctor(
    session: Session,
    chain: str | None,
    rpc_urls: tuple[str, ...],
    max_requests_per_second: float | None,
    as_json: bool,
    output: Path | None,
) -> None:
    """Examine the endpoints of a chain, and recommend its table for the configuration.

    It opens no database and changes nothing. Exit code 0 if a sync would work, 1 if something would make it fail or its
    rows unprovable; warnings do not count.
    """
    from indexer.doctor.finding import Verdict
    from indexer.doctor.here import packages
    from indexer.doctor.recommended import toml

    if chain == ALL and rpc_urls:
        raise click.UsageError("--rpc-url is an endpoint of one chain: name it with --chain")
    if output is not None and output.exists():
        raise click.UsageError(f"{output} exists; --output writes a new file only")
    findings = packages()
    broken = [finding.text for finding in findings if finding.verdict is Verdict.ERROR]
    tables: dict[str, Any] = {}
    failed: list[str] = []
    if not as_json:
        write(findings)
    for config, found, table in (
        [] if broken else all_examined(session.config, chain, rpc_urls, max_requests_per_second)
    ):
        if not as_json:
            write(found)
        findings += found
        if table is None or any(one.verdict is Verdict.ERROR and not one.endpoint for one in found):
            failed.append(config.name)
        if table is not None:
            tables[config.name] = table
    text = "\n".join(toml(name, table) for name, table in tables.items())
    if as_json:
        json.dump({"findings": [asdict(one) for one in findings], "chains": tables}, sys.stdout, indent=2)
        print()
    elif output is None and text:
        print(f"\n{text}", end="")
    if output is not None:
        with output.open("x", encoding="utf-8") as stream:
            stream.write(text)
    if broken:
        raise IndexerError("the installation is damaged, see above; no chain was examined")
    if failed:
        raise IndexerError(f"a sync of {', '.join(failed)} would fail, or its rows could not be proven: see above")


def all_examined(
    config: "Config", name: str | None, rpc_urls: Sequence[str], rate: float | None
) -> "Iterator[tuple[ChainConfig, list[Finding], dict[str, Any] | None]]":
    """Each chain to examine with what was found, in order; some chains at once. Raises `ConfigError` for an unknown name."""
    from concurrent.futures import ThreadPoolExecutor

    from indexer.config import DEFAULT_CHAIN

    config.check_own()
    wanted = list(config.chains.values()) if name == ALL else [config.chain(name or DEFAULT_CHAIN)]
    for chain in wanted:
        config.endpoints(chain, rpc_urls)  # names what is missing before anything is asked
    with ThreadPoolExecutor(AT_ONCE) as pool:
        examinations = [pool.submit(examined, config, chain, rpc_urls, rate) for chain in wanted]
        for chain, examination in zip(wanted, examinations, strict=True):
            yield (chain, *examination.result())


def examined(
    config: "Config", chain: "ChainConfig", rpc_urls: Sequence[str], rate: float | None
) -> "tuple[list[Finding], dict[str, Any] | None]":
    """What was found at the endpoints of a chain and about its deployments, and its table; None without a usable endpoint."""
    from indexer.chain.connect import unchecked
    from indexer.doctor.deployments import check_deployments
    from indexer.doctor.examination import examine, usable
    from indexer.doctor.recommended import chain_table

    urls = list(dict.fromkeys(endpoint.url for endpoint in config.endpoints(chain, rpc_urls)))
    with closing(unchecked(chain, urls, max_requests_per_second=rate, attempts=2)) as node:
        by_endpoint = [(endpoint.url, examine(node, chain, endpoint)) for endpoint in node.in_turn()]
    found = [finding for _, findings in by_endpoint for finding in findings]
    good = {url: findings for url, findings in by_endpoint if usable(findings)}
    if not good:
        return found, None
    mine = [one for one in config.deployments.values() if one.chain == chain.name]
    with closing(unchecked(chain, list(good), max_requests_per_second=rate, attempts=2)) as node:
        found += check_deployments(node, mine)
    return found, dict(chain_table(chain, list(good.values())))


def write(findings: "Sequence[Finding]") -> None:
    """Prints the findings in lines of at most 80 columns, those of one endpoint below its name."""
    for (chain, endpoint), group in groupby(findings, lambda one: (one.chain, one.endpoint)):
        ours = list(group)
        width = max(len(finding.check) for finding in ours)
        print(printable(f"{chain} {endpoint}".strip() or "this installation"))
        for finding in ours:
            for line in laid(finding, width):
                print(line)


def laid(finding: "Finding", width: int) -> Iterator[str]:
    """The lines of one finding; what does not fit goes on below its text."""
    head = f"  {finding.verdict:7}  {finding.check:{width}}  "
    first, *rest = folded(printable(finding.text), max(WIDTH - len(head), 30)) or [""]
    yield f"{head}{first}"
    for line in rest:
        yield f"{' ' * len(head)}{line.strip()}"
