"""Chainlink's SVR: an aggregator that hides its newest rounds from one proxy, which bidders for a liquidation reveal.

The contract says neither which proxy that is nor how long a round stays hidden: the one stands in its code, the other in its
storage, and CutoffTimeSet tells it where it was changed. Source: DualAggregator.sol.
"""

from collections.abc import Iterable

from indexer.abi import abi
from indexer.adapter import Reader
from indexer.chain.client import Chain
from indexer.model import Read
from indexer.prices.tables import PhaseRow

TYPE = abi("dual_aggregator").function("typeAndVersion")
LATEST = abi("aggregator").function("latestRound")
NAME = "DualAggregator"
#: s_hotVars, whose bytes 6 to 9 from the right are latestAggregatorRoundId, and s_cutoffTime, the last four bytes of its word
HOT_VARS, CUTOFF = 13, 18
LATEST_SHIFT = 48
WORD = 2**32 - 1
#: a round stays hidden for seconds; a word that says otherwise is something else
LONGEST = 3600


def hiding(chain: Chain, read: Reader, phases: Iterable[PhaseRow]) -> list[PhaseRow]:
    """Those of these phases whose aggregator hides rounds from their proxy: its code names it (i_secondaryProxy)."""
    asked = [row for row in phases if row.phase]
    names = read([Read(row.aggregator, TYPE, (), mutates=True) for row in asked]) if asked else []
    dual = [row for row, name in zip(asked, names, strict=True) if name and str(name).startswith(NAME)]
    codes = chain.codes([row.aggregator for row in dual], read.block) if dual else []
    return [row for row, code in zip(dual, codes, strict=True) if bytes.fromhex(row.feed[2:]) in code]


def cutoff(read: Reader, aggregator: str) -> int | None:
    """For how many seconds a round stays hidden, from storage; None where that cannot be read, or is laid out otherwise."""
    words = read.storage([(aggregator, HOT_VARS), (aggregator, CUTOFF)])
    (latest,) = read([Read(aggregator, LATEST)])
    if words is None or not latest or words[0] >> LATEST_SHIFT & WORD != latest:
        return None
    seconds = words[1] & WORD
    return seconds if 0 < seconds <= LONGEST else None
