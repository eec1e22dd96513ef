"""How to add an optional part to this copy of the program, in the way that it was installed."""

import json
import shlex
import sys
from importlib.metadata import distributions
from urllib.parse import unquote, urlsplit

NAME = "lending-indexer"


def how_to_install(extra: str) -> str:
    """The command for a shell that adds an extra, such as `parquet`, to this Python."""
    return f"{shlex.quote(sys.executable)} -m pip install {requirement(extra, origin())}"


def origin() -> str | None:
    """What pip wrote of where this copy comes from (direct_url.json, PEP 610); None if from a package index.

    In a checkout the build leaves metadata without it beside the source, and that may be found first.
    """
    found = (copy.read_text("direct_url.json") for copy in distributions(name=NAME))
    return next((text for text in found if text), None)


def requirement(extra: str, origin: str | None) -> str:
    """What to install, quoted for a shell: a folder with the extra, or the name with the place it comes from."""
    if origin is None:
        return shlex.quote(f"{NAME}[{extra}]")
    came = json.loads(origin)
    url: str = came["url"]
    if "dir_info" in came:
        folder = shlex.quote(f"{unquote(urlsplit(url).path)}[{extra}]")
        return f"--editable {folder}" if came["dir_info"].get("editable") else folder
    if "vcs_info" in came:
        url = f"{came['vcs_info']['vcs']}+{url}@{came['vcs_info']['commit_id']}"
    return shlex.quote(f"{NAME}[{extra}] @ {url}")
