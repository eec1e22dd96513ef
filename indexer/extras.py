"""How to install an optional extra into this copy of the program, the way the copy itself was installed."""

import json
import shlex
import sys
from importlib.metadata import distributions
from urllib.parse import unquote, urlsplit

NAME = "lending-indexer"


def how_to_install(extra: str) -> str:
    """The shell command that installs an extra, such as `parquet`, for this Python."""
    return f"{shlex.quote(sys.executable)} -m pip install {requirement(extra, origin())}"


def origin() -> str | None:
    """Pip's record of where this copy came from (direct_url.json, PEP 610); None if from a package index.

    In a checkout, a build leaves metadata without this record beside the source, which may be found first.
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
