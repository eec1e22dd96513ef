"""ENS names to addresses: web3's resolver, on mainnet."""

from collections.abc import Sequence

from ens import ENS
from ens.exceptions import ENSException
from ens.utils import normalize_name
from web3 import HTTPProvider, Web3
from web3.exceptions import Web3Exception

from indexer.errors import ChainError, ConfigError
from indexer.masking import mask

SECONDS = 10.0


def resolve(name: str, urls: Sequence[str], chain_id: int) -> str:
    """The lower-case address a name points to, asked of the first endpoint that answers and serves that chain.

    ConfigError if the name is none or points nowhere, ChainError if no endpoint answers.
    """
    reasons = []
    for url in urls:
        provider = HTTPProvider(url, request_kwargs={"timeout": SECONDS}, exception_retry_configuration=None)
        try:
            served = Web3(provider).eth.chain_id
            if served != chain_id:
                reasons.append(f"{mask(url)}: serves chain {served}")
                continue
            found = ENS(provider).address(name)
        except ENSException as error:
            raise ConfigError(f"{name!r} is no ENS name that can be resolved: {error}") from error
        except (Web3Exception, OSError, ValueError) as error:
            reasons.append(f"{mask(url)}: {type(error).__name__}")
            continue
        if found is None:
            raise ConfigError(f"the ENS name {name} points to no address; check its spelling, or give the address")
        return str(found).lower()
    raise ChainError(
        f"{name} cannot be resolved, as no mainnet endpoint answers ({'; '.join(reasons)}): set MAINNET_RPC_URL, or "
        "give the address"
    )


def normalized(name: str) -> str:
    """The one spelling of a name (ENSIP-15), without blanks around it. ConfigError if it is no ENS name."""
    try:
        return normalize_name(name.strip())
    except (ENSException, UnicodeError, ValueError) as error:
        reason = str(error).encode(errors="backslashreplace").decode()
        raise ConfigError(f"{name.strip()!a} is no ENS name: {reason}") from None
