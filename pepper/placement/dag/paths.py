"""A lower bound on the latency of the DAG problem, from paths."""

import math

import numpy as np
from numpy.typing import NDArray

from pepper.placement.dag.problem import DagProblem
from pepper.placement.evaluate import TOLERANCE
from pepper.placement.problem import Floats


def path_bound(problem: DagProblem, reads: NDArray[np.bool_], order: NDArray[np.int64]) -> Floats:
    """Return (devices + 1, n): the least time from when an item's inputs are in the host's memory to the end.

    Follow one path from the item. What a device holds of it is one run, and with the run's ends a contiguous
    share holds all that lies between them. So the path takes at least what the best split into runs and host
    items takes: a run costs its closure's work, must fit in memory, reads what comes before it and writes its
    last output. Each item's path goes on by the successor that bounds best.

    Args:
        problem: The items and devices.
        reads: (n, n) whether an item's output is read by another.
        order: Items, writers first.

    Returns:
        Row k bounds placements that use at most k devices off the host.
    """
    n = problem.n_items
    kinds = [kind for kind in problem.kinds if not kind.host and kind.count]
    hosts = [kind.item_ms for kind in problem.kinds if kind.host and kind.count]
    host_ms = np.min(hosts, axis=0) if hosts else np.full(n, math.inf)
    devices = min(n, sum(kind.count for kind in kinds))
    write_ms = np.zeros(n)
    for output in problem.outputs:
        write_ms[output.writer] = output.cost_ms
    read_ms = np.where(reads, write_ms[:, None], math.inf).min(axis=0)
    read_ms[np.isinf(read_ms)] = 0.0
    reach = np.eye(n, dtype=bool)
    for item in order[::-1]:
        reach[item] |= reach[reads[item]].any(axis=0)
    able = [np.isfinite(kind.item_ms) for kind in kinds]
    sums = np.stack(
        [
            problem.item_bytes,
            *(np.where(ok, kind.item_ms, 0.0) for ok, kind in zip(able, kinds, strict=True)),
            *(~ok for ok in able),
        ],
        axis=1,
    )
    least = np.zeros((devices + 1, n))
    paths: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)] * n
    for item in order[::-1]:
        for path in [paths[after] for after in np.flatnonzero(reads[item])] or [paths[item]]:
            line = np.concatenate([[item], path]).astype(np.int64)
            closure = (reach[item] & reach[:, line].T).astype(np.float64) @ sums
            size, work, unable = np.split(closure, [1, 1 + len(kinds)], axis=1)
            fits = size <= np.array([kind.memory_bytes * (1 + TOLERANCE) for kind in kinds])
            run_ms = np.where(fits & (unable == 0), work, math.inf).min(axis=1, initial=math.inf)
            run_ms[:-1] += write_ms[line[:-1]]
            onward = np.concatenate([least[:, line[1:]], np.zeros((devices + 1, 1))], axis=1)
            bound = host_ms[item] + onward[:, 0]
            shared = read_ms[item] + (run_ms + onward[:-1]).min(axis=1, initial=math.inf)
            bound[1:] = np.minimum(bound[1:], shared)
            if not len(paths[item]) or bound[-1] > least[-1, item]:
                least[:, item], paths[item] = bound, line
    return least
