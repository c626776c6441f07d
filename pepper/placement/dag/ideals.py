"""Downward-closed sets of a DAG ("ideals"), and what the share between two of them loads a device with.

A contiguous share is the difference of two ideals, and devices in order fill a chain of them. Sets are rows
of bits, so that all ideals are made, and all pairs of them costed, by a few array operations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from random import Random

import numpy as np
from numpy.typing import NDArray

from pepper.placement.problem import Floats

Bits = NDArray[np.uint64]

STRAY = 0.1
"""How often a random order takes a block of the next stage early."""


@dataclass(frozen=True)
class Blocks:
    """The contracted problem: `n` blocks, numbered in an order of precedence.

    Attributes:
        before: For each block the blocks that precede it directly.
        block_ms: (K, n) time on each kind; 0 where it cannot run.
        unable: (K, n) where it cannot run.
        size: (n,) memory.
        nets: Blocks that an output connects; it costs each device that it touches, unless one has them all.
        net_ms: (nets,) those costs.
    """

    before: tuple[tuple[int, ...], ...]
    block_ms: Floats
    unable: NDArray[np.bool_]
    size: Floats
    nets: tuple[frozenset[int], ...]
    net_ms: Floats

    @property
    def n(self) -> int:
        """Number of blocks."""
        return len(self.before)

    @cached_property
    def after(self) -> tuple[tuple[int, ...], ...]:
        """For each block the blocks that it precedes directly."""
        after: list[list[int]] = [[] for _ in range(self.n)]
        for block, needs in enumerate(self.before):
            for need in needs:
                after[need].append(block)
        return tuple(map(tuple, after))

    def bits(self, members: frozenset[int] | tuple[int, ...]) -> Bits:
        """Return a set of blocks as a row of 64-bit words."""
        row = np.zeros((self.n + 63) // 64, dtype=np.uint64)
        for member in members:
            row[member >> 6] |= np.uint64(1) << np.uint64(member & 63)
        return row


def all_ideals(blocks: Blocks, most_bytes: int) -> Bits | None:
    """Return every ideal as a row of bits, or None when they take more than `most_bytes`.

    Block by block in order of precedence: each ideal of the blocks so far is kept, and kept with the next
    block if it holds all that precedes it. Nothing is made twice; O(n N) array work for N ideals.
    """
    words = (blocks.n + 63) // 64
    most = most_bytes // (8 * words)
    ideals = np.zeros((1024, words), dtype=np.uint64)
    count = 1
    for block in range(blocks.n):
        needs = blocks.bits(blocks.before[block])
        fits = np.ones(count, dtype=bool)
        for word in np.flatnonzero(needs):
            fits &= (ideals[:count, word] & needs[word]) == needs[word]
        grown = ideals[:count][fits]
        if count + len(grown) > most:
            return None
        grown[:, block >> 6] |= np.uint64(1) << np.uint64(block & 63)
        if count + len(grown) > len(ideals):
            room = np.zeros((count + len(grown), words), dtype=np.uint64)
            ideals = np.concatenate([ideals[:count], room])
        ideals[count : count + len(grown)] = grown
        count += len(grown)
    return ideals[:count]


def orders(blocks: Blocks) -> list[list[int]]:
    """Return topological orders that differ in what they finish first: depth, breadth, and the numbering."""
    after = blocks.after
    depth = np.zeros(blocks.n)
    height = np.zeros(blocks.n)
    for block in range(blocks.n):
        depth[block] = max((depth[b] + 1 for b in blocks.before[block]), default=0)
    for block in range(blocks.n - 1, -1, -1):
        height[block] = max((height[b] + 1 for b in after[block]), default=0)
    found = [list(range(blocks.n))]
    for key in (depth, -height, -depth + depth.max()):
        waiting = [len(needs) for needs in blocks.before]
        ready = [b for b in range(blocks.n) if not waiting[b]]
        order = []
        while ready:
            block = min(ready, key=lambda b: (key[b], b))
            ready.remove(block)
            order.append(block)
            for b in after[block]:
                waiting[b] -= 1
                if not waiting[b]:
                    ready.append(b)
        found.append(order)
    return found


def near_order(blocks: Blocks, stage: Mapping[int, int], random: Random) -> list[int]:
    """Return a random topological order that mostly follows given stages, and so passes near their ideals."""
    waiting = [len(needs) for needs in blocks.before]
    ready = [b for b in range(blocks.n) if not waiting[b]]
    order: list[int] = []
    while ready:
        latest = min(stage.get(b, 0) for b in ready) + (random.random() < STRAY)
        block = random.choice([b for b in ready if stage.get(b, 0) <= latest])
        ready.remove(block)
        order.append(block)
        for b in blocks.after[block]:
            waiting[b] -= 1
            if not waiting[b]:
                ready.append(b)
    return order


def prefixes(blocks: Blocks, orders: list[list[int]]) -> Bits:
    """Return the ideals that are prefixes of the given topological orders, each once."""
    rows = []
    for order in orders:
        steps = np.stack([blocks.bits((block,)) for block in order])
        rows.append(np.bitwise_or.accumulate(steps, axis=0))
    empty = np.zeros((1, rows[0].shape[1]), dtype=np.uint64)
    unique: Bits = np.unique(np.concatenate([empty, *rows]), axis=0)
    return unique


def members(bits: Bits, n: int) -> NDArray[np.bool_]:
    """Return rows of bits as a boolean matrix (rows, n)."""
    unpacked = np.unpackbits(np.ascontiguousarray(bits).view(np.uint8), axis=1, bitorder="little")
    return unpacked[:, :n].astype(bool)


class Ideals:
    """Ideals with the sums and traces that the loads of shares need.

    A net counts for the share J \\ I if the share has some of its blocks and not all. With `cut(I)` the
    cost of the nets of which I has some and not all, that is ``cut(I) + cut(J)``, less the cost of each net
    that both have partly, once, and once more if both have the same part: a product of two matrices.

    Attributes:
        bits: (N, words) the ideals.
        work_ms: (K, N) time of all blocks of each ideal on each kind.
        unable: (K, N) number of its blocks that cannot run there.
        size: (N,) its memory.
        cut_ms: (N,) `cut`.
    """

    def __init__(self, blocks: Blocks, bits: Bits) -> None:
        self.blocks = blocks
        self.bits = bits
        inside = members(bits, blocks.n)
        self.work_ms = sums(bits, blocks.block_ms)
        self.unable = sums(bits, blocks.unable.astype(np.float64))
        self.size = sums(bits, blocks.size[None])[0]
        self.cut_ms = np.zeros(len(bits))
        columns, weights = [], []
        for net, cost_ms in zip(blocks.nets, blocks.net_ms, strict=True):
            of_net = inside[:, sorted(net)]
            have = of_net.sum(axis=1)
            partly = (have > 0) & (have < len(net))
            if cost_ms == 0.0 or not partly.any():
                continue
            self.cut_ms += cost_ms * partly
            traces = _same_rows(of_net[partly])
            kinds = int(traces.max()) + 1
            if kinds == 1:
                columns.append(partly)
                weights.append(2 * cost_ms)
                continue
            columns.append(partly)
            weights.append(cost_ms)
            rows = np.flatnonzero(partly)
            for kind in range(kinds):
                column = np.zeros(len(bits), dtype=bool)
                column[rows[traces == kind]] = True
                columns.append(column)
                weights.append(cost_ms)
        self._partly = np.stack(columns, axis=1) if columns else np.zeros((len(bits), 0), dtype=bool)
        self._weights = np.array(weights)

    def __len__(self) -> int:
        return len(self.bits)

    def transfer_ms(self, inner: NDArray[np.int64], outer: NDArray[np.int64]) -> Floats:
        """Return (inner, outer): what the shares between nested ideals move; meaningless where not nested."""
        left, right = self._partly[inner], self._partly[outer]
        active = left.any(axis=0) & right.any(axis=0)
        shared = (left[:, active] * self._weights[active]) @ right[:, active].T.astype(np.float64)
        moved: Floats = self.cut_ms[inner][:, None] + self.cut_ms[outer] - shared
        return moved

    def nested(self, inner: NDArray[np.int64], outer: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (inner, outer): whether the inner ideal is a subset of the outer."""
        left, right = self.bits[inner], ~self.bits[outer]
        result = np.ones((len(inner), len(outer)), dtype=bool)
        for word in range(self.bits.shape[1]):
            result &= (left[:, word, None] & right[:, word]) == 0
        return result


def sums(bits: Bits, values: Floats) -> Floats:
    """Return (K, N): the sum of each row of `values` (K, n) over the blocks of each ideal.

    Byte by byte, from tables of the sums of all 256 subsets of eight blocks.
    """
    octets = np.ascontiguousarray(bits).view(np.uint8)
    padded = np.zeros((len(values), 8 * octets.shape[1]))
    padded[:, : values.shape[1]] = values
    subsets = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    total = np.zeros((len(values), len(bits)))
    for octet in range(-(-values.shape[1] // 8)):
        tables = padded[:, 8 * octet : 8 * octet + 8] @ subsets.T
        for k, table in enumerate(tables):
            if table.any():
                total[k] += table[octets[:, octet]]
    return total


def _same_rows(rows: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number the distinct rows; return the number of each."""
    if rows.shape[1] <= 62:
        keys = rows @ (1 << np.arange(rows.shape[1], dtype=np.int64))
        _, number = np.unique(keys, return_inverse=True)
    else:
        _, number = np.unique(np.packbits(rows, axis=1), axis=0, return_inverse=True)
    return np.asarray(number, dtype=np.int64).reshape(-1)
