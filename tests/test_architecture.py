"""docs/architecture.md against the code and against import-linter's layers: no arrow too many, none too few."""

import ast
import re
import tomllib
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import grimp

from tests.sources import ROOT, one_process, sources

pytestmark = one_process
PAGE = (ROOT / "docs" / "architecture.md").read_text()
LINTER: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]

#: the picture's name for the modules of indexer/ itself and the packages that any of them may use
CORE = "core"
CORE_PACKAGES = {"boundary", "text"}
#: a package whose rooms nobody can keep in mind any more is two
MOST_FILES = 20
MOST_LINES = 3_000
#: a function with as many is two
LONGEST_FUNCTION = 60
#: a test module with more is about more than one subject
MOST_LINES_OF_TESTS = 800


def package(module: str) -> str:
    """The picture's package of a module: of `indexer` its packages and the start, of others the whole.

    `indexer` itself is the door of `api`.
    """
    root, *path = module.split(".")
    if root != "indexer":
        return root
    if not path:
        return "api"
    own = path and ((ROOT / "indexer" / path[0]).is_dir() or path[0] == "__main__")
    return path[0] if own and path[0] not in CORE_PACKAGES else CORE


@cache
def imports() -> frozenset[tuple[str, str]]:
    """Who imports whom, package by package; with type-checking imports, as import-linter is told to count."""
    graph = grimp.build_graph(
        *LINTER["root_packages"], exclude_type_checking_imports=LINTER["exclude_type_checking_imports"], cache_dir=None
    )
    pairs = {
        (package(importer), package(imported))
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
    }
    return frozenset((importer, imported) for importer, imported in pairs if importer != imported)


def layers() -> list[set[str]]:
    """Packages of `indexer` from the top, those of one layer together; then the modules that the picture calls core."""
    (contract,) = (c for c in LINTER["contracts"] if c["type"] == "layers")
    found = [{package(f"indexer.{name.strip()}") for name in layer.split("|")} for layer in contract["layers"]]
    packages = [layer for layer in found if layer != {CORE}]
    assert found == [*packages, *[{CORE}] * (len(found) - len(packages))], (
        "the modules of indexer/ are below its packages"
    )
    return [*packages, {CORE}]


def picture() -> str:
    (drawn,) = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
    return str(drawn)


def arrows() -> list[tuple[str, str]]:
    return re.findall(r"^ *(\w+) --> (\w+)$", picture(), re.MULTILINE)


def test_the_pictures_arrows_are_the_imports_between_packages() -> None:
    """All but those to core, which every package of the indexer may import."""
    drawn = arrows()
    assert len(set(drawn)) == len(drawn), "an arrow is drawn twice"
    expected = {(above, below) for above, below in imports() if below != CORE or above == "protocols"}
    assert sorted(expected - set(drawn)) == [], "imported, but not drawn"
    assert sorted(set(drawn) - expected) == [], "drawn, but not imported"
    dotted = re.findall(r"^ *(\w+) -\.-> (\w+)$", picture(), re.MULTILINE)
    assert not set(dotted) & imports(), "drawn as no import, but imported"


def test_the_layers_allow_every_arrow_of_the_picture() -> None:
    floors = {name: floor for floor, layer in enumerate(layers()) for name in layer}
    inside = [(above, below) for above, below in arrows() if above in floors or below in floors]
    assert [(a, b) for a, b in inside if a in floors and b in floors and floors[a] >= floors[b]] == []
    assert {(a, b) for a, b in inside if a not in floors} == {("protocols", CORE)}
    assert [(a, b) for a, b in inside if b not in floors] == []


def test_picture_and_table_name_every_package_once() -> None:
    roots = set(LINTER["root_packages"]) - {"indexer"}
    packages = {name for layer in layers() for name in layer} | roots
    table = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert sorted(table) == sorted(packages)
    assert set(re.findall(r"\w+(?= -)|(?<=> )\w+", picture())) == packages


def sizes() -> dict[str, tuple[int, int]]:
    """Folder with modules -> how many files it has, data among them, and how many lines its modules have together."""
    found = {}
    for root in ("indexer", "protocols"):
        for folder in [ROOT / root, *(ROOT / root).rglob("*/")]:
            files = [path for path in folder.iterdir() if path.is_file()] if folder.name != "__pycache__" else []
            lines = sum(len(path.read_text().splitlines()) for path in files if path.suffix == ".py")
            if any(path.suffix == ".py" for path in files):
                found[str(folder.relative_to(ROOT))] = (len(files), lines)
    return found


def test_no_package_outgrows_what_one_can_keep_in_mind() -> None:
    found = sizes()
    assert {"indexer", "indexer/store", "protocols/aave_v3"} <= set(found)
    assert {folder: size for folder, size in found.items() if size[0] > MOST_FILES or size[1] > MOST_LINES} == {}


def test_a_function_fits_on_a_screen() -> None:
    lengths = {
        f"{source.name}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert "indexer/sync/reorg.py:heal" in lengths
    assert {name: lines for name, lines in lengths.items() if lines >= LONGEST_FUNCTION} == {}


def test_a_module_of_tests_has_one_subject() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in (ROOT / "tests").rglob("*.py")
    }
    assert "tests/test_architecture.py" in lengths
    assert {path: lines for path, lines in lengths.items() if lines > MOST_LINES_OF_TESTS} == {}


def walks() -> dict[str, list[tuple[str, str]]]:
    """Heading -> (package, text) of each numbered step."""
    found = {}
    for section in PAGE.split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        if heading.startswith("From "):
            found[heading] = re.findall(r"^\d+\. `(\w+)`(.*?)(?=^\d+\. |\Z)", text, re.MULTILINE | re.DOTALL)
    return found


def test_each_walk_enters_each_package_once() -> None:
    assert list(walks()) == ["From a log to a row", "From a shock to a number"]
    for heading, steps in walks().items():
        entered = [name for name, _ in steps]
        assert len(entered) == len(set(entered)) > 1, heading
        assert set(entered) <= {name for pair in imports() for name in pair}, heading


def defined(path: Path) -> set[str]:
    """Functions, classes and methods of a module: name, or Class.name."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


def test_what_the_page_names_exists() -> None:
    named = re.findall(r"`((?:indexer|protocols|tests)/[\w/]+\.py)(?::([\w.]+))?`", PAGE)
    assert len(named) > 20
    missing = [path for path, _ in named if not (ROOT / path).is_file()]
    missing += [f"{path}:{name}" for path, name in named if name and name not in defined(ROOT / path)]
    assert missing == []


def deletes_rows(node: ast.AST, docs: Collection[ast.AST]) -> bool:
    text = node.value if isinstance(node, ast.Constant) and node not in docs else None
    return isinstance(text, str) and bool(re.search(r"\b(delete from|drop (table|view|column))\b", text, re.IGNORECASE))


def deletes_files(node: ast.AST) -> bool:
    """Whether it calls what removes a file or folder, or gives one the name of another."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    name = node.func.attr
    return name in {"unlink", "rmtree", "rmdir", "rename", "truncate"} or (
        name == "replace" and len(node.args) == 1 and not node.keywords
    )


#: where any module may hold SQL
SQL_PACKAGES = {"store", "history", "queries", "transfer", "schema"}
SQL = re.compile(
    r"\b(select\s.*\sfrom\s|insert (or \w+ )?into\s|update \w+ set\s|delete from\s|(create|drop)( temp)? (table|view|index)\s)",
    re.IGNORECASE | re.DOTALL,
)


def texts(tree: ast.AST) -> list[ast.Constant]:
    """The constant texts of a module but its docstrings and the examples of help."""
    places = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, places) and node.body and isinstance(node.body[0], ast.Expr)
    }
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [node for node in found if node not in docs and not str(node.value).startswith("\b\n")]


def modules_with_sql() -> set[str]:
    """The modules outside those packages that hold a statement, or hand one to a connection, written there or not."""
    found = set()
    for source in sources():
        if source.name.split("/")[1] in SQL_PACKAGES:
            continue
        handed = [
            node.args[0]
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("execute", "executemany", "executescript")
        ]
        own = [
            a for a in handed if not (isinstance(a, ast.Constant) and re.match(r"(begin|pragma) ?\w*", str(a.value)))
        ]
        if own or any(SQL.search(str(node.value)) for node in texts(source.tree)):
            found.add(source.name)
    return found


def test_sql_stands_on_the_store_side_and_in_one_module_of_a_package() -> None:
    (told,) = re.findall(r"^SQL stands in (.*?)\n\n", PAGE, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(\w+)`", told.split(".")[0])) == SQL_PACKAGES
    named = re.findall(r"`(indexer/[\w/]+\.py)`", told)
    assert len({path.split("/")[1] for path in named}) == len(named), "a package has one such module"
    assert modules_with_sql() == set(named)


def deletions() -> list[tuple[str, str]]:
    """(module:line, the function around it or the module) of whatever deletes rows, tables, views or files, or replaces a file."""
    found = []
    for source in sources():
        functions = [node for node in ast.walk(source.tree) if isinstance(node, ast.FunctionDef)]
        docs = {node.body[0].value for node in functions if isinstance(node.body[0], ast.Expr)}
        for node in ast.walk(source.tree):
            if deletes_rows(node, docs) or deletes_files(node):
                assert isinstance(node, ast.expr)
                around = [f for f in functions if f.lineno <= node.lineno <= (f.end_lineno or 0)]
                inner = max(around, key=lambda f: f.lineno, default=None)
                where = f"{source.name}:{node.lineno}"
                found.append((where, (inner and ast.get_source_segment(source.text, inner)) or source.text))
    return found


def test_what_deletes_says_on_what_evidence() -> None:
    """No step that cannot be undone on one answer: beside each stands what it acts on, and how it is undone."""
    found = deletions()
    assert len(found) > 30
    assert [where for where, text in found if "Evidence" not in text and "schema/wallets.py" not in where] == []
    assert "Evidence" in (ROOT / "indexer" / "schema" / "wallets.py").read_text()
