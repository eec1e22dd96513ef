"""`indexer sync` of several chains: one process and one file a chain, in a folder."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from indexer.errors import ConfigError, IndexerError, StoreError
from indexer.jobs.folder_alerts import delivering
from indexer.jobs.measuring import METRICS_FLAGS, measuring_all
from indexer.jobs.watching import CHANNEL_FLAGS
from indexer.queries import queries as reading
from indexer.store.shards import WATCH_FILE, chain_files, make_folder, places
from indexer.store.store import Store
from indexer.terminal.options import Moment, Session
from indexer.text.console import remark
from indexer.text.table import moves, write_table
from indexer.text.values import iso

if TYPE_CHECKING:
    from indexer.config import ChainConfig, Config
    from indexer.fleet.member import Member

#: the chain that means all with an endpoint of the user's own
ALL = "all"
#: beside the chains' files: when which requests were sent, see `indexer.chain.budget`
BUDGET_FILE = ".requests"
#: parameters that the process of a chain gets another way
NOT_PASSED_ON = {"chain", *CHANNEL_FLAGS, *METRICS_FLAGS}


def many_chains(session: Session, names: Sequence[str], flags: Mapping[str, Any], *, streams: bool) -> None:
    """Syncs these chains, each in a process of its own. Exit code 1 if one gave up, once the others are through."""
    from indexer.fleet.supervisor import Supervisor
    from indexer.fleet.table import drawn

    check(session, flags, streams=streams)
    chains, follow = chosen(session.config, names, flags["protocols"]), flags["follow"]
    with locked(session.db) as store:
        files = files_of(session.db, chains)
        members = members_of(session, files, flags)
        with (
            delivering(session, flags, store, chains, files) as desk,
            measuring_all(flags, [metrics_file(path) for path in files.values()], session.watch_db) as write,
        ):
            still = desk is not None and desk.prints and sys.stdout.isatty()  # else the table hides what is printed

            def committed(member: "Member") -> None:
                if desk is not None:
                    desk.committed(member)
                if write is not None:
                    write()

            with drawn(members, still=still) as redraw:
                supervisor = Supervisor(members, say, redraw, committed)
                supervisor.run()
            if desk is not None and not supervisor.signals:
                desk.couriers.settle()
        told(members)
    finish(members, interrupted=bool(supervisor.signals), follow=follow, files=files, chains=chains)


def members_of(session: Session, files: Mapping[str, Path], flags: Mapping[str, Any]) -> "list[Member]":
    """The chains with their processes, none of which is started yet."""
    from indexer.fleet.member import FOLLOW_PAUSES, ONCE_PAUSES, Member

    follow, rate = flags["follow"], flags["max_requests_per_second"]
    budget = None if rate is None else (str((session.db / BUDGET_FILE).absolute()), rate)
    pauses = FOLLOW_PAUSES if follow else ONCE_PAUSES
    return [Member(name, arguments(session, name, path), follow, pauses, budget) for name, path in files.items()]


def check(session: Session, flags: Mapping[str, Any], *, streams: bool) -> None:
    """Refuses what several chains cannot have in common."""
    for wrong, why in (
        (not session.folder, "several chains need a file each: name a folder, --db DIR/"),
        (bool(flags["rpc_urls"]), "--rpc-url is an endpoint of one chain; <CHAIN>_RPC_URL and the configuration name those of each"),
        (bool(flags["deployments"]), "--deployment is of one chain: name a file with --db, or choose with --protocol"),
        (flags["dry_run"], "--dry-run is for one chain and a file: name it with --db DIR/CHAIN.db"),
        (flags["accept_reorg"], "--accept-reorg is for one chain and a file: name it with --db DIR/CHAIN.db"),
        (streams, "--nl and --webhook tell of one chain and a file: name it with --db DIR/CHAIN.db"),
        (flags["to"].isdecimal(), f"--to {flags['to']} is a block of one chain; latest, safe and finalized are of each"),
        (isinstance(flags["since"], int), "--since BLOCK is of one chain: give a date or an age"),
    ):  # fmt: skip
        if wrong:
            raise click.UsageError(why)


def chosen(config: "Config", names: Sequence[str], protocols: Sequence[str]) -> "list[ChainConfig]":
    """The chains that are meant, each once; `all` are those with an endpoint of the user's own, a line names the others."""
    from indexer.config import DEFAULT_CHAIN

    if ALL not in names:
        found = [config.select(name, protocols)[0] for name in dict.fromkeys(names or (DEFAULT_CHAIN,))]
        for chain in found:
            config.endpoints(chain)
        return found
    config.check_own()
    own = [chain for chain in config.chains.values() if config.environment.get(chain.variable) or chain.rpc]
    used = [chain for chain in own if any(
        one.chain == chain.name and (not protocols or one.protocol in protocols) for one in config.deployments.values()
    )]  # fmt: skip
    for chain in used:
        config.select(chain.name, protocols)
        config.endpoints(chain)
    left = sorted(config.chains.keys() - {chain.name for chain in used})
    if not used:
        raise ConfigError(
            "no chain has an endpoint of your own: set <CHAIN>_RPC_URL, such as MAINNET_RPC_URL, or `rpc` in "
            "[chains.NAME] of the configuration, or name chains with --chain to use public ones"
        )
    if left:
        remark(f"left out, as no endpoint of your own is configured or nothing to sync: {', '.join(left)}")
    return used


@contextmanager
def locked(folder: Path) -> Iterator[Store]:
    """Makes the folder if need be, and holds the right to sync into it; yields the file of watched wallets."""
    make_folder(folder)
    with ExitStack() as stack:
        store = stack.enter_context(Store(folder / WATCH_FILE))
        stack.enter_context(store.lock())
        yield store


def files_of(folder: Path, chains: "Sequence[ChainConfig]") -> dict[str, Path]:
    """The file of each chain by name. StoreError where another file of the folder holds it."""
    known = places(chain_files(folder))
    files = {chain.name: folder / f"{chain.name}.db" for chain in chains}
    for chain in chains:
        other = known.get(chain.chain_id)
        if other is not None and other != files[chain.name]:
            raise StoreError(
                f"{chain.name} is in {other}, and would be in {files[chain.name]} too: give that file this name, or move "
                "it out of the folder"
            )
    return files


def arguments(session: Session, chain: str, path: Path) -> list[str]:
    """The command line of one chain's process: the flags that the user gave, its chain and its file."""
    context = click.get_current_context()
    whole = context.find_root().params
    made = ["--db", str(path), "--log-format", whole["log_format"], *["-v"] * whole["verbose"]]
    if session.config_path is not None:
        made += ["--config", str(session.config_path)]
    if any(context.params[name] is not None for name in METRICS_FLAGS):
        own = ["--metrics-file", str(metrics_file(path))]
    else:
        own = []
    if context.params["watch"]:
        made += ["--watch-db", str(session.watch_db)]
    made += [str(context.info_name), "--chain", chain]
    for option in context.command.params:
        name = option.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if name in NOT_PASSED_ON or not given or name not in context.params:
            continue
        made += worded(option.opts[-1], context.params[name])
    return [*made, *own]


def metrics_file(path: Path) -> Path:
    """Where the process of a chain leaves its metrics for the one that publishes all."""
    return path.with_name(f".{path.stem}.prom")


def worded(option: str, value: Any) -> list[str]:
    """A flag and its value as somebody would type them."""
    if value is True:
        return [option]
    if isinstance(value, list | tuple):
        return [part for one in value for part in (option, str(one))]
    if isinstance(value, Moment):
        return [option, f"{value.seconds // 3600}h" if value.ago else iso(value.seconds)]
    return [option, str(value)]


def say(chain: str, line: str) -> None:
    """One line of a chain's process, with the chain before it."""
    remark(line if line.startswith(f"{chain} ") else f"{chain}: {line}")


def told(members: "Sequence[Member]") -> None:
    """Prints the table once more at the end, where it is not redrawn any longer."""
    from indexer.fleet.table import COLUMNS, row

    if moves(sys.stderr) or len(members) > 1:
        write_table(COLUMNS, [row(member) for member in members], sys.stderr, sparse=True)


def finish(
    members: "Sequence[Member]",
    *,
    interrupted: bool,
    follow: bool,
    files: dict[str, Path],
    chains: "Sequence[ChainConfig]",
) -> None:
    """Ends the command: with an error unless every chain is committed."""
    from indexer.fleet.member import State

    gone = [f"{member.name} ({member.said})" for member in members if member.state is State.GAVE_UP]
    if gone:
        raise IndexerError(f"{len(gone)} of {len(members)} chains gave up: {'; '.join(gone)}")
    if not interrupted:
        return
    if not follow:
        raise KeyboardInterrupt
    blocks = {chain.name: reading.last_block(files[chain.name], chain.chain_id) for chain in chains}
    without = [name for name, block in blocks.items() if block is None]
    if without:
        raise IndexerError(
            f"stopped before the first snapshot of {', '.join(without)}; the same command goes on from there"
        )
    shown = ", ".join(f"{name} {block}" for name, block in blocks.items())
    remark(f"Stopped. The last snapshots are of {shown}; the same command goes on from there.")
