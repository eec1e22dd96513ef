"""Whether the deployments of a chain are where the configuration says, and since when."""

from collections.abc import Iterator, Sequence

from indexer.chain.client import Chain
from indexer.doctor.finding import Finding, Verdict
from indexer.errors import ChainError
from indexer.model import Block, Deployment
from indexer.plugins import adapter_class
from indexer.reads.first_block import first_block


def check_deployments(chain: Chain, deployments: Sequence[Deployment]) -> Iterator[Finding]:
    """One finding a deployment: no contract there, a start block that is too late, or the block that the chain proves."""
    try:
        head = chain.block("latest")
    except ChainError as error:
        yield Finding("deployments", Verdict.WARNING, f"could not be looked at: {error}", chain=chain.name)
        return
    for deployment in deployments:
        addresses = [deployment.addresses[key] for key in adapter_class(deployment.protocol).required_addresses]
        try:
            yield _check(chain, deployment, addresses, head)
        except ChainError as error:
            text = f"could not be looked at: {error}"
            yield Finding(deployment.name, Verdict.WARNING, text, chain=chain.name)


def _check(chain: Chain, deployment: Deployment, addresses: Sequence[str], head: Block) -> Finding:
    name, start = deployment.name, deployment.start_block
    for address in addresses:
        if not chain.code(address, head):
            return Finding(name, Verdict.ERROR, f"there is no contract at {address}", chain=chain.name)
    found = first_block(chain, addresses, head, start)
    if found is None:
        text = (
            f"nothing proves that it is older than its start_block {start:,}"
            if start
            else "its first block is not known"
        )
        return Finding(name, Verdict.OK, text, chain=chain.name)
    if start:
        text = f"exists since block {found:,}, before its start_block {start:,}: set start_block = {found}"
        return Finding(name, Verdict.ERROR, text, value=found, chain=chain.name)
    return Finding(
        name, Verdict.OK, f"exists since block {found:,}: start_block = {found}", value=found, chain=chain.name
    )
