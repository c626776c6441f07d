"""Attention: the scores of all queries and keys, and their product with the values; projections where they are inside.

Masks, causal or given, and windows change what counts, not what kernels compute, and are left out, as in published
counts. What depends on the data, such as how full a cache is, counts as much as there is room for.
"""

import math
from collections.abc import Sequence

from pepper.graph.cost_kinds import Call, Product, Rule, UnknownCostError, Work


def attention(call: Call) -> Work:
    """Scaled dot-product attention of ``ai.onnx`` (and FlexAttention): 4-D, or 3-D with packed heads."""
    q, k, v = (call.shape(i) for i in range(3))
    past = call.shape(4)[2] if call.has(4) else 0
    if len(q) == 4:
        return Work("attention", _scores(q[0], q[1], q[2], k[2] + past, q[3], v[3]))
    heads = call.attribute("q_num_heads", 1)
    value_size = v[2] // call.attribute("kv_num_heads", heads)
    return Work("attention", _scores(q[0], heads, q[1], k[1] + past, q[2] // heads, value_size))


def _scores(batch: int, heads: int, q: int, kv: int, size: int, value_size: int) -> tuple[Product, Product]:
    """``Q K^T`` and the scores times ``V``."""
    return Product(batch * heads, q, size, kv), Product(batch * heads, q, kv, value_size)


def linear_attention(call: Call) -> Work:
    """A state of key size by value size per head is updated and read at each token, twice by delta rules."""
    q, v = call.shape(0), call.shape(2)
    heads, kv_heads = call.attribute("q_num_heads", 1), call.attribute("kv_num_heads", 1)
    tokens, key_size, value_size = q[0] * q[1], q[2] // heads, v[2] // kv_heads
    products = [
        Product(tokens * kv_heads, key_size, 1, value_size),
        Product(tokens * heads, 1, key_size, value_size),
    ]
    if b"delta" in call.attribute("update_rule", b"gated_delta"):
        products.append(Product(tokens * kv_heads, 1, key_size, value_size))
    return Work("attention", products)


def projected(past_at: int) -> Rule:
    """Attention with its input projection: weights hold Q, K and V side by side."""

    def rule(call: Call) -> Work:
        batch, length, _ = call.shape(0)
        past = call.shape(past_at)[3] if call.has(past_at) else 0
        return Work("attention", _with_projection(call, batch, length, length + past))

    return rule


def packed(call: Call) -> Work:
    """The same of sequences without their padding, ``[tokens, hidden]``: all taken for equally long."""
    batch, length = _unpadded(call, 3)
    return Work("attention", _with_projection(call, batch, length, length))


def _with_projection(call: Call, batch: int, length: int, keys: int) -> list[Product]:
    data, weight = call.shape(0), call.shape(1)
    heads = call.attribute("num_heads", 1)
    hidden = call.attribute("qkv_hidden_sizes") or [weight[1] // 3] * 3
    scores = _scores(batch, heads, length, keys, hidden[0] // heads, hidden[2] // heads)
    return [Product(1, math.prod(data[:-1]), weight[0], weight[1]), *scores]


def _unpadded(call: Call, offsets_at: int) -> tuple[int, int]:
    """Sequences, and tokens of each, from the offsets ``[batch, longest sequence]``."""
    batch = call.shape(offsets_at)[0]
    return batch, call.shape(0)[0] // max(batch, 1)


def multi_head(past_at: int) -> Rule:
    """Attention over projected queries; keys may be packed, 3-D or 4-D, cached, and shared by heads."""

    def rule(call: Call) -> Work:
        q, heads = call.shape(0), call.attribute("num_heads", 1)
        past = call.shape(past_at)[2] if call.has(past_at) else 0
        if len(q) == 5:  # (batch, length, heads, 3, size)
            return Work("attention", _scores(q[0], q[2], q[1], q[1] + past, q[4], q[4]))
        groups = call.attribute("kv_num_heads", heads)
        is_packed = not call.has(1)
        key = q if is_packed else call.shape(1)
        size = q[2] // (heads + 2 * groups) if is_packed else q[2] // heads
        length = key[2] if len(key) == 4 else key[1]
        value_size = _value_size(call.shape(2), groups) if call.has(2) else size
        return Work("attention", _scores(q[0], heads, q[1], length + past, size, value_size))

    return rule


def _value_size(value: Sequence[int], heads: int) -> int:
    return value[3] if len(value) == 4 else value[2] // heads


def packed_multi_head(call: Call) -> Work:
    """Over sequences without their padding: all taken for equally long."""
    q, heads = call.shape(0), call.attribute("num_heads", 1)
    batch, length = _unpadded(call, 4)
    size = q[3] if len(q) == 4 else q[1] // heads  # (tokens, heads, 3, size)
    value_size = call.shape(2)[1] // heads if call.has(2) else size
    return Work("attention", _scores(batch, heads, length, length, size, value_size))


def longformer(call: Call) -> Work:
    """Each token meets the ``window`` tokens before it and after it; what global tokens add depends on the data."""
    (batch, length, hidden), weight = call.shape(0), call.shape(1)
    heads, window = call.attribute("num_heads", 1), call.attribute("window", 0)
    projection = Product(1, batch * length, weight[0], weight[1])
    met = min(2 * window + 1, length)
    return Work("attention", (projection, *_scores(batch, heads, length, met, hidden // heads, hidden // heads)))


def decoder(call: Call) -> Work:
    """Query and key, ``[length, batch, hidden]``, are projected inside; what a cache holds depends on the data."""
    (length, batch, hidden), keys = call.shape(0), call.shape(1)[0]
    heads, query, both = call.attribute("num_heads", 1), call.shape(2), call.shape(3)
    projections = Product(1, length * batch, *query), Product(1, keys * batch, *both)
    return Work("attention", (*projections, *_scores(batch, heads, length, keys, hidden // heads, hidden // heads)))


def paged(_: Call) -> Work:
    """The cache's pages hold as many tokens as the data says."""
    raise UnknownCostError("how many cached tokens it meets depends on the data")
