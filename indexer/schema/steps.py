"""The steps from an empty file to the schema of today, by name; a released one is never edited."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database

    Step = Callable[[Database], None]

#: name -> step; applied in the order of the names, which begin with their numbers
STEPS: "dict[str, Step]" = {}


def migrations(*, name: str) -> "Callable[[Step], Step]":
    """Registers a migration."""

    def register(step: "Step") -> "Step":
        STEPS[name] = step
        return step

    return register


def execute(db: "Database", statements: str) -> None:
    """Several statements, each with `;` at the end of its last line."""
    for statement in filter(str.strip, statements.split(";\n")):
        db.conn.execute(statement)
