"""Convolutions: each element written is a sum over one filter."""

import math

from pepper.graph.cost_kinds import Call, Product, Rule, Work
from pepper.graph.layout import BLOCK


def convolution(weight_at: int) -> Rule:
    """A convolution whose weight, at that input, has the layout ``[filters, channels / group, *kernel]``."""

    def rule(call: Call) -> Work:
        weight, output = call.shape(weight_at), call.output_shape()
        filters, group = weight[0], int(call.attribute("group", 1))
        form = _form(group, weight[1], filters // group)
        taps, axes = math.prod(weight[2:]), max(len(weight) - 2, 1)
        side = next((s for s in (1, 3, 5) if taps <= s**axes), 7)
        positions = math.prod(output) // max(filters, 1)
        product = Product(group, positions, math.prod(weight[1:]), filters // group)
        return Work(f"conv_{form}_k{side}", (product,))

    return rule


def _form(groups: int, depth: int, width: int) -> str:
    """Form of a convolution from ``depth`` to ``width`` channels a group."""
    if groups == 1:
        return "dense"
    if depth == 1:
        return "depthwise"
    return "narrow" if depth % BLOCK or width % BLOCK else "grouped"


def transposed(weight_at: int) -> Rule:
    """A transposed convolution, its weight laid out ``[channels, filters / group, *kernel]``: each element read
    meets one filter."""

    def rule(call: Call) -> Work:
        data, weight = call.shape(0), call.shape(weight_at)
        group, channels = int(call.attribute("group", 1)), weight[0]
        positions = math.prod(data) // max(channels, 1)
        product = Product(group, positions, channels // group, math.prod(weight[1:]))
        return Work("conv_transpose", (product,))

    return rule


def causal(call: Call) -> Work:
    """Depthwise, one-dimensional: a filter of ``weight.shape[-1]`` taps for each channel."""
    channels, taps = call.shape(1)[0], call.shape(1)[-1]
    side = next((s for s in (1, 3, 5) if taps <= s), 7)
    positions = math.prod(call.output_shape()) // max(channels, 1)
    return Work(f"conv_depthwise_k{side}", (Product(channels, positions, taps, 1),))
