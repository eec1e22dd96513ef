"""Which parts of a URL or a text may be shown."""

import re
from urllib.parse import urlsplit


def mask(url: str) -> str:
    """The URL without anything that may be a key: user info, key-like path segments, query, fragment."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "<malformed URL>"
    if not parts.scheme or not host:
        return "<malformed URL>"
    host = ".".join("***" if _looks_like_key(label) else label for label in host.split("."))
    if ":" in host:
        host = f"[{host}]"
    path = "/".join(part if not part or _PLAIN_SEGMENT.fullmatch(part) else "***" for part in parts.path.split("/"))
    return (
        f"{parts.scheme}://{'***@' if '@' in parts.netloc else ''}{host}{f':{port}' if port else ''}"
        f"{path}{'?***' if parts.query else ''}"
    )


#: words of a path that are no secrets; anything else may be one
_PLAIN_SEGMENT = re.compile(
    r"v\d{1,2}|api|arbitrum|avalanche|avax|base|bc|bnb|bsc|c|eth|ethereum|evm|ext|gnosis|http|jsonrpc|mainnet|optimism|"
    r"polygon|public|rpc|ws|wss",
    re.IGNORECASE,
)


def _looks_like_key(label: str) -> bool:
    """Whether a host label mixes 16 or more letters and digits, as some providers put the key into the host name."""
    return len(label) >= 16 and "-" not in label and bool(re.search(r"\d", label)) and bool(re.search(r"[a-z]", label))


#: how many characters of a stranger's text are examined
LONGEST_TEXT = 4_096
_URL = re.compile(rf"\b[a-z][a-z0-9+.-]{{0,20}}://[^\s\"'<>)\]}}]{{1,{LONGEST_TEXT}}}", re.IGNORECASE)


def masked(text: str) -> str:
    """The first `LONGEST_TEXT` characters of a text, with its URLs masked."""
    return _URL.sub(lambda found: mask(found[0]), text[:LONGEST_TEXT])


def secrets(url: str) -> list[str]:
    """The parts of a URL that `mask` hides, longest first."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return []
    found = {part for part in parts.path.split("/") if part and not _PLAIN_SEGMENT.fullmatch(part)}
    found |= {parts.query, parts.username or "", parts.password or ""}
    found |= {value for pair in parts.query.split("&") for value in pair.split("=", 1)[1:]}
    found |= {label for label in (parts.hostname or "").split(".") if _looks_like_key(label)}
    return sorted((part for part in found if len(part) >= 3), key=len, reverse=True)


def harmless(value: object) -> str:
    """A configuration value as an error may show it: numbers, and short words that cannot be keys."""
    if value is None or isinstance(value, bool | int | float):
        return repr(value)[:40]
    if isinstance(value, str):
        if re.fullmatch(r"0x[0-9a-fA-F]{0,42}", value):
            return repr(value)
        if re.fullmatch(r"[A-Za-z0-9_. %+-]{0,32}", value) and not re.search(
            r"(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{16}", value
        ):
            return repr(value)
        return "a text not shown here, as it may hold a key"
    return (
        "a table" if isinstance(value, dict) else "a list" if isinstance(value, list | tuple) else type(value).__name__
    )
