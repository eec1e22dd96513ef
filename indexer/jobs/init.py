"""The verb `init`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from indexer.errors import ConfigError
from indexer.terminal.options import Session, session_of
from indexer.text.console import remark

if TYPE_CHECKING:
    from indexer.config import ChainConfig

HEAD = """\
# Where to ask, and what to tune; `indexer doctor` recommends a chain's table, docs/reference-configuration.md has every key.
# Endpoints with keys stay in environment variables: "${NAME}" is the variable of that name.
"""
TAIL = """
# [deployments.my-fork]              # a fork of a known protocol is data
# protocol = "aave-v3"
# chain = "mainnet"
# addresses = { pool_addresses_provider = "0x..." }

# [settings]
# at_risk_below = 1.1

# [alerts]                           # for `indexer watch run` and `check`
# urls = ["tgram://${TELEGRAM_TOKEN}/42424242"]
"""


@click.command(
    short_help="Write a configuration to begin with, and check it.",
    epilog="\b\nExamples:\n  indexer init\n  indexer --config base.toml init --chain base",
)
@click.option(
    "--chain", "chains", multiple=True, metavar="NAME", help="A chain to name in it; repeatable.  [default: mainnet]"
)
@session_of
@click.pass_context
def init(context: click.Context, session: Session, chains: Sequence[str]) -> None:
    """Write ./indexer.toml (or --config FILE) for these chains; never over a file that is there.

    The file is yours alone (0600) and holds no key: endpoints are those of the environment variables that it names. Where such a
    variable is set, `indexer doctor` examines its chain afterwards, and its exit code is this command's.
    """
    from indexer.config import DEFAULT_CHAIN, load

    path = session.config_path or Path("indexer.toml")
    configured = load(None, os.environ) if session.config_path is not None else session.config
    wanted = [configured.chain(name) for name in dict.fromkeys(chains or (DEFAULT_CHAIN,))]
    try:
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        raise ConfigError(
            f"{path} is there already, and nothing was changed: edit it, or name another with --config"
        ) from None
    path.write_text(HEAD + "".join(table(chain) for chain in wanted) + TAIL, encoding="utf-8")
    remark(f"{path} is written")
    able = [chain for chain in wanted if os.environ.get(chain.variable)]
    for chain in wanted:
        if chain not in able:
            now = "is asked through free public endpoints" if chain.public_rpc else "has no endpoint yet"
            remark(f"{chain.name} {now}: {chain.variable}=https://... names a node of your own")
    if able:
        examine(context, Session(path, session.db_path, session.db_named), able)


def table(chain: "ChainConfig") -> str:
    """The table of a chain; without its variable the built-in public endpoints are asked."""
    mark = "" if os.environ.get(chain.variable) else "# "
    return f'\n[chains.{chain.name}]\n{mark}rpc = ["${{{chain.variable}}}"]  # several are tried in order\n'


def examine(context: click.Context, session: Session, chains: "Sequence[ChainConfig]") -> None:
    """Runs `doctor` for each chain, as one command: its errors end this one, after all chains."""
    from indexer.errors import IndexerError
    from indexer.jobs.doctor import doctor

    context.obj = session
    failed: list[str] = []
    for chain in chains:
        try:
            context.invoke(
                doctor, chain=chain.name, rpc_urls=(), max_requests_per_second=None, as_json=False, output=None
            )
        except IndexerError as error:
            failed.append(str(error))
    if failed:
        raise IndexerError("; ".join(failed))
