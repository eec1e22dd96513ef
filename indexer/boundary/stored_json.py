"""JSON in the columns of a database, which may come from outside like any other file."""

from typing import Any

from indexer.boundary import bounded_json
from indexer.errors import StoreError

#: characters of a market or position that need no closer look before they are parsed
SMALL = 2**20
TEXT = (str, bytes)


def stored_object(text: object, where: str) -> dict[str, Any]:
    """The JSON object in a column. Raises `StoreError`, which names `where` it stands, for anything else."""
    value = _stored(text, where, dict, "object")
    assert isinstance(value, dict)
    return value


def stored_array(text: object, where: str) -> list[Any]:
    """The JSON array in a column. Raises `StoreError`, which names `where` it stands, for anything else."""
    value = _stored(text, where, list, "array")
    assert isinstance(value, list)
    return value


def _stored(text: object, where: str, kind: type, name: str) -> object:
    try:
        value = bounded_json.loads(str(text).encode())
        reason = f"no JSON {name}"
    except ValueError as error:
        value, reason = None, str(error)[:120]
    if not isinstance(value, kind):
        raise StoreError(
            f"{where} is damaged ({reason}): restore a copy of the file, or delete it and run `indexer sync` again"
        )
    return value


def require_room(content: Any) -> Any:
    """A column's content, for a parser that bounds the depth alone. ValueError if its value might fill the memory."""
    if isinstance(content, TEXT) and len(content) > SMALL:
        bounded_json.require_size(content.encode(errors="replace") if isinstance(content, str) else content)
    return content
