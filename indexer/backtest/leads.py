"""How long before each liquidation an alarm was on without a break, at as many alarms as a rule of thumb gives."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from indexer.backtest.scores import Blocks, Bools, Ints, Value
from indexer.backtest.vaults import Liquidation
from indexer.forecast.model import Floats

HOUR = 3_600
#: liquidations of a vault within so long of each other are one episode, of which the first counts
EPISODE_SECONDS = 7 * 86_400
WARNED = (1, 4, 12, 24, 72)


class Lead(NamedTuple):
    """Of one alarm over all episodes: median lead (hours) and the shares warned at least so many hours before."""

    rule: float
    load: float
    alarm: str
    episodes: int
    blocks: int
    median: Value
    warned: Mapping[int, Value]


def episodes(liquidations: Sequence[Liquidation], since: int, until: int) -> list[Liquidation]:
    """The first liquidation of each episode of a vault."""
    found, last = [], dict[int, int]()
    for one in liquidations:
        if since <= one.at < until:
            if one.vault not in last or one.at - last[one.vault] > EPISODE_SECONDS:
                found.append(one)
            last[one.vault] = one.at
    return found


def hours(alarm: Bools, times: Ints, columns: Mapping[int, int], happened: Sequence[Liquidation]) -> Floats:
    """Hours from the decision since which the alarm (T, vaults) was on to each liquidation; 0 where it was off."""
    found = np.zeros(len(happened))
    for number, one in enumerate(happened):
        row = int(np.searchsorted(times, one.at)) - 1
        column = columns[one.vault]
        while row >= 0 and alarm[row, column]:
            found[number] = (one.at - times[row]) / HOUR
            row -= 1
    return found


def compared(
    rule: float, load: float, name: str, model: Floats, ruled: Floats, happened: Sequence[Liquidation], first: int
) -> list[Lead]:
    """The model's leads, the rule's, and the difference of their statistics with its interval."""
    blocks = Blocks(np.array([one.at for one in happened], np.int64), first)

    def of(alarm: str, *samples: Floats) -> Lead:
        def median(*drawn: Floats) -> float:
            return float(np.median(drawn[0]) - (np.median(drawn[1]) if len(drawn) > 1 else 0.0))

        def share(limit: int, values: Floats) -> Floats:
            return (values >= limit).astype(float)

        return Lead(
            rule, load, alarm, len(happened), blocks.count, blocks.statistic(median, *samples),
            {
                limit: blocks.mean(share(limit, samples[0]) - (share(limit, samples[1]) if len(samples) > 1 else 0.0))
                for limit in WARNED
            },
        )  # fmt: skip

    return [of("model", model), of(name, ruled), of("model minus rule", model, ruled)]
