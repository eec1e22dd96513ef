"""What the marked blocks of the pages are made of, from the code itself: `make docs` writes them, a test compares them."""

import ast
import dataclasses
import inspect
import json
import os
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

import indexer
from indexer import config
from indexer.cli.main import VERBS, main
from indexer.plugins import adapter_class, installed
from indexer.schema.dictionary import dictionary

#: the arguments with which a list has rows of the demo; other lists need none
ASKED = {
    "export": ["export", "positions"],
    "levels": ["levels", "WETH"],
    "query": ["query", "select status, count(*) as positions from positions group by status"],
    "report": ["report", "0xba0e453cb7b828f01212b8c317e80d7ce82e02a3", "--format", "json"],
    "show": ["show", "0xba0e453cb7b828f01212b8c317e80d7ce82e02a3"],
    "simulate": ["simulate", "--shock", "eth=-20%"],
}
#: what a key is when the dictionary has no column of that name
JSON_TYPES = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    list: "list",
    dict: "object",
    type(None): "null",
}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by its whole name, in the order of `--help`."""

    def inner(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
        yield path, command
        for name, one in sorted(getattr(command, "commands", {}).items()):
            yield from inner(one, f"{path} {name}")

    yield from inner(main, "indexer")


def helps() -> str:
    """The help of every command."""
    found = []
    for name, command in commands():
        with click.Context(command, info_name=name, max_content_width=110, terminal_width=110) as context:
            text = command.get_help(context).rstrip()
        found.append(f"## {name}\n\n```text\n{text}\n```\n")
    return "\n".join(found)


def verbs() -> str:
    """One line a verb."""
    lines = [f"| [`{name}`](#indexer-{name}) | {verb.summary} |" for name, verb in VERBS.items()]
    return "\n".join(["| command | what it does |", "| --- | --- |", *lines])


def comments(source: str) -> dict[str, dict[str, str]]:
    """Class -> field -> what the comment above (`#:`) or behind it says."""
    lines, found = source.splitlines(), defaultdict[str, dict[str, str]](dict)
    for node in ast.parse(source).body:
        for field in node.body if isinstance(node, ast.ClassDef) else ():
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            above = []
            row = field.lineno - 2
            while lines[row].strip().startswith("#:"):
                above.insert(0, lines[row].strip()[2:].strip())
                row -= 1
            span = "\n".join(lines[field.lineno - 1 : field.end_lineno])
            behind = re.findall(r"#(?!:) ?(.+)$", f"{span}", re.MULTILINE)
            found[node.name][field.target.id] = " ".join(above or behind)  # type: ignore[union-attr]
    return found


def fields(module: Any, name: str, hidden: tuple[str, ...] = ()) -> str:
    """The keys of a table of the configuration, with their defaults and what the code says of them."""
    kind = getattr(module, name)
    told = comments(inspect.getsource(module))[name]
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    given = {one.name: default_of(one) for one in dataclasses.fields(kind)}
    for key, default in given.items():
        if key not in hidden:
            shown = "must be given" if default is None else "none" if default == "null" else f"`{default}`"
            rows.append(f"| `{key}` | {shown} | {told.get(key) or KEYS.get(key, '')} |")
    return "\n".join(rows)


def default_of(field: "dataclasses.Field[Any]") -> str | None:
    """The default as JSON, None where there is none."""
    if field.default_factory is not dataclasses.MISSING:
        return json.dumps(field.default_factory())
    return None if field.default is dataclasses.MISSING else json.dumps(field.default)


#: keys whose meaning docs/chains.md explains at length
KEYS = {
    "chain_id": "a table with it defines a chain, one without changes a built-in one",
    "rpc": "your endpoints, in the order to try them; `${NAME}` takes an environment variable",
    "public_rpc": "endpoints that need no key, asked when nothing else is configured",
    "multicall3": "where Multicall3 is",
    "guard": "what each aggregate compares with the block's header: full, number, arbsys, timestamp or none",
    "bloom": "whether the bloom filter of a header is that of its block's logs: exact, partial or none",
    "timeout_seconds": "for one request and its whole answer",
    "explorer": "alerts link to its /address/0x...",
    "native_symbol": "what the chain's own coin is called",
    "max_requests_per_second": "for all endpoints together; each call of a batch counts",
    "protocol": "the protocol whose adapter reads it; see the addresses below",
    "chain": "the chain it is on",
    "addresses": "the contracts it is found by, see below",
    "options": "what its protocol takes besides, see below",
    "at_risk_below": "the health factor below which a position is `at-risk`",
}


def addresses() -> str:
    """The addresses and options that each protocol takes."""
    rows = ["| protocol | addresses it needs | addresses it may have | options |", "| --- | --- | --- | --- |"]
    for name in sorted(installed()):
        kind = adapter_class(name)
        cells = [kind.required_addresses, kind.optional_addresses, tuple(kind.options)]
        rows.append(f"| {name} | {' | '.join(', '.join(f'`{key}`' for key in keys) or '-' for keys in cells)} |")
    return "\n".join(rows)


def groups() -> str:
    """The built-in groups of `simulate`."""
    from indexer.risk.scenario import GROUPS

    return "\n".join(f"* `{name}`: {', '.join(members)}" for name, members in GROUPS.items())


@cache
def built_in() -> config.Config:
    """The configuration that a stranger has."""
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.toml"
        empty.touch()
        return config.load(empty, {})


def markets() -> str:
    """Protocols by chain, with how many deployments of each are built in."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for deployment in built_in().deployments.values():
        found[deployment.protocol][deployment.chain] += 1
    rows = ["| protocol | chains |", "| --- | --- |"]
    for protocol, chains in sorted(found.items()):
        named = ", ".join(f"{chain}{f' ({count})' if count > 1 else ''}" for chain, count in chains.items())
        rows.append(f"| {protocol} | {named} |")
    return "\n".join(rows)


def variables() -> str:
    """The variables that name endpoints."""
    return ", ".join(f"`{chain.variable}`" for chain in built_in().chains.values())


def exit_codes() -> str:
    """What each code means, from where it is raised."""
    from indexer.terminal.freshness import ANYONE_LISTED, NOBODY_KNOWS

    rows = {
        0: "done; also `sync --follow` and `watch run` that were interrupted",
        NOBODY_KNOWS: "an error; with `--exit-code` or `--max-age`: a deployment is failed, incomplete, never synced or too old",
        2: "wrong usage or configuration; nothing was changed",
        ANYONE_LISTED: "`--exit-code` of `at-risk` and `watch check`: somebody is listed",
        130: "interrupted; what was saved stays, and the same command goes on",
    }
    return "\n".join(
        ["| code | meaning |", "| --- | --- |", *(f"| {code} | {text} |" for code, text in sorted(rows.items()))]
    )


def ran(arguments: list[str]) -> Any:
    """What a command prints as JSON in the folder of the demo; None where it prints no JSON."""
    result = CliRunner().invoke(main, arguments)
    return json.loads(result.stdout) if result.exit_code in (0, 3) and result.stdout.strip()[:1] in ("[", "{") else None


def shapes() -> str:
    """The keys of the JSON of every list, as it prints them of the demo."""
    found = []
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        try:
            os.chdir(folder)
            CliRunner().invoke(main, ["demo", "demo"])
            os.chdir("demo")
            for verb, about in VERBS.items():
                command = main.get_command(None, verb)  # type: ignore[arg-type]
                flags = {option for parameter in command.params for option in parameter.opts} if command else set()
                if about.module.startswith("lists.") and "--output" in flags:
                    found.append(shape(ASKED.get(verb, [verb])))
                elif verb in dictionary().lists:
                    found.append(f"## indexer {verb}\n\n{said_of(verb)}\n")
        finally:
            os.chdir(here)
    return "\n".join(found)


def shape(arguments: list[str]) -> str:
    wanted = arguments if "--format" in arguments else [*arguments, "--json"]
    rows = ran(wanted)
    written = " ".join(f'"{word}"' if " " in word else word for word in wanted)
    head = f"## indexer {arguments[0]}\n\n`indexer {written}`\n"
    if not rows:
        return f"{head}\n{said_of(arguments[0])}\n"
    keys = table(rows if isinstance(rows, list) else [rows])
    return f"{head}\n{keys}\n"


def said_of(verb: str) -> str:
    """The columns of a list of which the demo has no rows, as the data dictionary has them."""
    told = dictionary().lists.get(verb)
    if told is None:
        return f"Not of the demo, which has no such rows: `indexer {verb} --help` says more."
    lines = ["| key | type | unit | meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| `{name}` | {one.type} | {one.unit} | {one.meaning} |" for name, one in told.columns.items()]
    return "\n".join(["Not of the demo, which has no such rows; NULL is `null`.", "", *lines])


def table(rows: list[dict[str, Any]]) -> str:
    told = dictionary().of(list(rows[0]))
    lines = ["| key | JSON | unit | meaning |", "| --- | --- | --- | --- |"]
    for key in rows[0]:
        kinds = {JSON_TYPES[type(row.get(key))] for row in rows} - {"null"}
        if {"integer", "number"} <= kinds:
            kinds -= {"integer"}
        column = told.get(key)
        values = [row[key] for row in rows if isinstance(row.get(key), list | dict) and row[key]]
        nested = [
            one for value in values for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)
        ]
        inside = f"; keys: {', '.join(f'`{name}`' for name in nested[0])}" if nested else ""
        nullable = " or null" if any(row.get(key) is None for row in rows) else ""
        lines.append(
            f"| `{key}` | {' or '.join(sorted(kinds)) or 'null'}{nullable if kinds else ''} | {column.unit if column else ''} | "
            f"{(column.meaning if column else '') + inside} |"
        )
    return "\n".join(lines)


def api() -> str:
    """What `import indexer` promises: of each name the signature and what it says of itself, the way in first, errors last."""
    found = []
    first = ("open", "Book", "connect", "Connection")
    rest = [name for name in indexer.__all__ if name not in first]
    for name in (*first, *sorted(rest, key=lambda name: name.endswith("Error"))):
        value = getattr(indexer, name)
        if name == "__version__":
            found.append("## `__version__`\n\nThe version of the installed package, as text.\n")
        elif dataclasses.is_dataclass(value):
            fields = ", ".join(f"`{one.name}: {type_of(one.type)}`" for one in dataclasses.fields(value))
            found.append(f"## `{name}`\n\n{about(value)}\n\nFields: {fields}\n{members(value)}")
        elif inspect.isclass(value) and issubclass(value, Exception):
            bases = ", ".join(f"`{base.__name__}`" for base in value.__bases__)
            found.append(f"## `{name}`\n\n{about(value)} It is a {bases}.\n")
        elif inspect.isclass(value):
            found.append(f"## `{name}`\n\n{about(value)}\n{members(value)}")
        else:
            found.append(f"## `{name}`\n\n{signed(f'indexer.{name}', value)}\n")
    return "\n".join(found)


def members(kind: type) -> str:
    """The public methods and properties that a class defines."""
    lines = []
    for name, value in vars(kind).items():
        if name.startswith("_"):
            continue
        if isinstance(value, property | cached_property):
            inner = value.fget if isinstance(value, property) else value.func
            lines.append(f"### `.{name}`\n\n`{type_of(inspect.signature(inner).return_annotation)}`. {about(inner)}\n")
        elif isinstance(value, classmethod) or inspect.isfunction(value):
            lines.append(f"### `.{name}()`\n\n{signed(f'.{name}', getattr(kind, name))}\n")
    return "\n" + "\n".join(lines) if lines else ""


def signed(name: str, function: Any) -> str:
    """A signature on a line for each parameter where it is long, and below it what the function says of itself."""
    told = inspect.signature(function)
    parameters = [one for one in told.parameters.values() if one.name != "self"]
    shown = [str(one.replace(annotation=Shown(one.annotation))) for one in parameters]
    keyword = next((place for place, one in enumerate(parameters) if one.kind is one.KEYWORD_ONLY), None)
    if keyword is not None and not any(one.kind is one.VAR_POSITIONAL for one in parameters):
        shown.insert(keyword, "*")
    line = f"{name}({', '.join(shown)}) -> {type_of(told.return_annotation)}"
    if len(line) > 110:
        inside = "".join(f"    {one},\n" for one in shown)
        line = f"{name}(\n{inside}) -> {type_of(told.return_annotation)}"
    return f"```py\n{line}\n```\n\n{about(function)}"


class Shown:
    """An annotation that is printed as `type_of` has it."""

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation

    def __repr__(self) -> str:
        return type_of(self.annotation)


def type_of(annotation: Any) -> str:
    """A type as its author wrote it."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = text.replace("datetime.datetime | int", "datetime | int")
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z])", "", text).replace("'", "").replace('"', "")


def about(thing: Any) -> str:
    """The docstring, without the indentation of the code."""
    return inspect.cleandoc(thing.__doc__ or "")
