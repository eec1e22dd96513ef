"""ENS names to addresses: web3's resolver, over the project's own client."""

from typing import Any

from indexer.boundary.bounded_json import same_recursion_limit
from indexer.chain.client import Chain
from indexer.chain.errors import RevertError
from indexer.errors import ChainError, ConfigError

with same_recursion_limit():
    from ens import ENS
    from ens.exceptions import ENSException
    from ens.utils import normalize_name
    from web3.exceptions import OffchainLookup, Web3Exception
    from web3.providers.base import BaseProvider


class _Provider(BaseProvider):
    """Sends web3's requests through a chain: with its deadline, its bounds, its endpoints and its masking."""

    # never ask a URL that a stranger's contract names
    global_ccip_read_enabled = False

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        self._chain = chain

    def make_request(self, method: Any, params: Any) -> Any:
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": 1}
        try:
            return answer | {"result": self._chain.request(str(method), params)}
        except RevertError as error:
            return answer | {"error": {"code": 3, "message": str(error), "data": "0x" + error.data.hex()}}


def resolve(name: str, chain: Chain) -> str:
    """The lower-case address a name points to; the chain bounds how long its answers may take.

    ConfigError if it is not a name, points nowhere, or is resolved by a server off the chain; ChainError if no endpoint
    answers.
    """
    try:
        found = ENS(_Provider(chain)).address(name)
    except ENSException as error:
        raise ConfigError(f"{name!r} is no ENS name that can be resolved: {error}") from error
    except OffchainLookup:
        raise ConfigError(f"the ENS name {name} is resolved by a server off the chain; give the address") from None
    except ChainError as error:
        raise unresolved(name, error) from None
    except (Web3Exception, ValueError, TypeError) as error:
        raise unresolved(name, f"{chain.endpoint} answers {type(error).__name__}") from None
    if found is None:
        raise ConfigError(f"the ENS name {name} points to no address; check its spelling, or give the address")
    return str(found).lower()


def unresolved(name: str, reason: object) -> ChainError:
    """The error for a name that no endpoint resolves."""
    return ChainError(
        f"{name} cannot be resolved: {reason}; name another endpoint of mainnet with --rpc-url or MAINNET_RPC_URL, or give "
        "the address"
    )


def normalized(name: str) -> str:
    """The normalised spelling of a name (ENSIP-15), without surrounding blanks. ConfigError if it is not an ENS name."""
    try:
        return normalize_name(name.strip())
    except (ENSException, UnicodeError, ValueError) as error:
        reason = str(error).encode(errors="backslashreplace").decode()
        raise ConfigError(f"{name.strip()!a} is no ENS name: {reason}") from None
