"""Matrix products, in all the forms that exporters, optimisers and quantisers write; elimination is made of them."""

import math
from collections.abc import Sequence

import numpy as np

from pepper.graph.cost_kinds import Call, Product, Rule, Work


def matmul(b_at: int) -> Rule:
    """The product of input 0 and the input at ``b_at``, as ``numpy.matmul`` has it."""

    def rule(call: Call) -> Work:
        return Work(_by_weight(call, 0, b_at), (_product(call.shape(0), call.shape(b_at)),))

    return rule


def _by_weight(call: Call, *positions: int) -> str:
    operands = [call.inputs[p] for p in positions if p < len(call.inputs)]
    return "gemm" if any(t is not None and t.is_weight for t in operands) else "matmul"


def _product(a: Sequence[int], b: Sequence[int]) -> Product:
    m, k = (a[-2] if len(a) > 1 else 1), a[-1]
    n = b[-1] if len(b) > 1 else 1
    if len(b) <= 2:
        return Product(1, math.prod(a[:-1]), k, n)
    return Product(math.prod(np.broadcast_shapes(tuple(a[:-2]), tuple(b[:-2]))), m, k, n)


def fused_matmul(call: Call) -> Work:
    """A product whose operands are transposed on the way, their last axes or the first into the batch."""

    def arranged(position: int, letter: str) -> list[int]:
        shape = list(call.shape(position))
        if call.attribute(f"transBatch{letter}", 0) and len(shape) > 1:
            shape = [*shape[1:-1], shape[0], shape[-1]]
        if call.attribute(f"trans{letter}", 0) and len(shape) > 1:
            shape[-2:] = shape[:-3:-1]
        return shape

    return Work(_by_weight(call, 0, 1), (_product(arranged(0, "A"), arranged(1, "B")),))


def gemm(b_at: int) -> Rule:
    """``Gemm``, its second matrix at that input."""

    def rule(call: Call) -> Work:
        a, b = call.shape(0), call.shape(b_at)
        m, k = a[::-1] if call.attribute("transA", 0) else a
        n = b[0] if call.attribute("transB", 0) else b[1]
        return Work(_by_weight(call, 0, b_at), (Product(1, m, k, n),))

    return rule


def packed_matmul(call: Call) -> Work:
    """Weights of a few bits, packed: only attributes or the output tell how wide they are."""
    data = call.shape(0)
    k = call.attribute("K", data[-1])
    n = call.attribute("N") or call.output_shape()[-1]
    precision = "int8" if call.attribute("accuracy_level", 0) == 4 else None
    return Work("gemm", (Product(1, math.prod(data[:-1]), k, n),), precision=precision)


def einsum(call: Call) -> Work:
    """Operands are contracted from left to right, as the equation lists them."""
    equation = call.attribute("equation", b"").decode().replace(" ", "")
    terms, _, result = equation.partition("->")
    sizes: dict[str, int] = {}
    operands: list[set[str]] = []
    for position, term in enumerate(terms.split(",")):
        shape = call.shape(position)
        head, dots, tail = term.partition("...")
        hidden = [f"...{i}" for i in range(len(shape) - len(head) - len(tail), 0, -1)] if dots else []
        labels = [*head, *hidden, *tail]
        sizes |= {label: max(dim, sizes.get(label, 1)) for label, dim in zip(labels, shape, strict=True)}
        operands.append(set(labels))
    if not result:
        joined = terms.replace("...", "")
        result = "".join(c for c in joined if joined.count(c) == 1 and c != ",") + "..."
    kept = set(result.replace("...", "")) | {label for label in sizes if label.startswith("...")}
    products, left = [], operands[0]
    for position, right in enumerate(operands[1:], 1):
        needed = kept.union(*operands[position + 1 :])

        def size(labels: set[str]) -> int:
            return math.prod(sizes[label] for label in labels)

        both, summed = left & right & needed, (left | right) - needed
        products.append(
            Product(
                size(both),
                size((left - right) & needed),
                size(summed),
                size((right - left) & needed),
            )
        )
        left = (left | right) & needed
    return Work(_by_weight(call, *range(len(operands))) if products else "reduction", products)


def mixture(call: Call) -> Work:
    """Each token runs through ``k`` experts of two or three matrices."""
    weights = [call.shape(i) for i in (2, 4, 6) if call.has(i)]
    return Work("gemm", _experts(call, [(into, out) for _, out, into in weights]))


def packed_mixture(call: Call) -> Work:
    """The same with matrices ``[experts, out, in]`` of a few bits, packed along ``in``."""
    bits = call.attribute("expert_weight_bits", 4)
    matrices = []
    for name, at in (("fc1", 2), ("fc2", 5), ("fc3", 8)):
        if call.has(at):
            _, out, held_bytes = call.shape(at)
            matrices.append((held_bytes * 8 // call.attribute(f"{name}_expert_weight_bits", bits), out))
    return Work("gemm", _experts(call, matrices))


def _experts(call: Call, matrices: Sequence[tuple[int, int]]) -> list[Product]:
    tokens, chosen = math.prod(call.shape(0)[:-1]), call.attribute("k", 1)
    return [Product(chosen, tokens, into, out) for into, out in matrices]


def elimination(call: Call) -> Work:
    """Gaussian elimination of ``n x n`` matrices: about ``n^3 / 3`` MACs for Det, ``n^3`` for Inverse."""
    shape = call.shape(0)
    depth = shape[-1] if call.proto.op_type == "Inverse" else max(shape[-1] // 3, 1)
    return Work("spectral", (Product(math.prod(shape[:-2]), shape[-2], depth, shape[-1]),))


def distances(call: Call) -> Work:
    """Distances of all rows of one matrix to all of another."""
    (m, k), n = call.shape(0), call.shape(1)[0]
    return Work("matmul", (Product(1, m, k, n),))
