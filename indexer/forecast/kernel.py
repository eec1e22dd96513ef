"""The search through steps as machine code, by numba: the same sums in the same order as numpy's, so the same hits."""

import numpy as np
from numba import njit, prange


@njit(cache=True, parallel=True, nogil=True)
def by_steps(starts, factors, now, growth, prices, lowest, highest, horizons):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Sure and possible hits (W, horizons); see `search.by_steps`."""
    hits = np.zeros((2, len(starts) - 1, len(horizons)), np.int64)
    for position in prange(len(starts) - 1):
        of_position(hits, position, starts, factors, now, growth, prices, lowest, highest, horizons)
    return hits[0], hits[1]


@njit(cache=True, nogil=True)
def by_steps_alone(starts, factors, now, growth, prices, lowest, highest, horizons):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """The same in one thread, where several would cost more than they save."""
    hits = np.zeros((2, len(starts) - 1, len(horizons)), np.int64)
    for position in range(len(starts) - 1):
        of_position(hits, position, starts, factors, now, growth, prices, lowest, highest, horizons)
    return hits[0], hits[1]


@njit(cache=True, nogil=True)
def of_position(hits, position, starts, factors, now, growth, prices, lowest, highest, horizons):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    begin, end = starts[position], starts[position + 1]
    for path in range(prices.shape[1]):
        # what comes near includes what is sure: nothing more to look for where nothing comes near
        first = first_unsafe(factors, now[1], growth[1], begin, end, prices, lowest, highest, path, 0, horizons[-1])
        if first > horizons[-1]:
            continue
        count(hits[1, position], first, horizons)
        first = first_unsafe(
            factors, now[0], growth[0], begin, end, prices, lowest, highest, path, first - 1, horizons[-1]
        )
        count(hits[0, position], first, horizons)


@njit(cache=True, nogil=True)
def count(hits, first, horizons):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    for number in range(len(horizons)):
        if first <= horizons[number]:
            hits[number] += 1


@njit(cache=True, nogil=True)
def first_unsafe(factors, now, growth, begin, end, prices, lowest, highest, path, since, last):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """The first step after `since` at which the path makes the position unsafe, last + 1 where none does."""
    chunk_steps = 24
    total = np.empty(chunk_steps)
    for chunk in range(since // chunk_steps, (last + chunk_steps - 1) // chunk_steps):
        bound = 0.0
        for term in range(begin, end):
            least = min(
                now[term] + growth[term] * (chunk * chunk_steps + 1),
                now[term] + growth[term] * ((chunk + 1) * chunk_steps),
            )
            extreme = lowest[factors[term], path, chunk] if least >= 0 else highest[factors[term], path, chunk]
            bound += least * extreme
        if bound >= 0:
            continue
        start = chunk * chunk_steps
        stop = min(start + chunk_steps, last)
        for i in range(stop - start):
            total[i] = 0.0
        for term in range(begin, end):
            for i in range(stop - start):
                total[i] += (now[term] + growth[term] * (start + i + 1)) * prices[factors[term], path, start + i]
        for i in range(max(since - start, 0), stop - start):
            if total[i] < 0:
                return start + i + 1
    return last + 1
