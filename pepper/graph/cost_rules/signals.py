"""Fourier transforms."""

import math
from collections.abc import Callable

from pepper.graph.cost_kinds import Call, Product, Rule, Work


def fourier(signal_axes: Callable[[Call], tuple[int, int]]) -> Rule:
    """A fast transform of length L: ``L/2 log2 L`` complex products of 4 MACs."""

    def rule(call: Call) -> Work:
        transforms, length = signal_axes(call)
        return Work("spectral", (Product(transforms, 2, length, max(length - 1, 1).bit_length()),))

    return rule


def dft_axes(call: Call) -> tuple[int, int]:
    """Transforms and their length, of DFT."""
    shape = call.output_shape()
    axis = call.attribute("axis", -2)  # an input since opset 20; its default is -2
    length = max(shape[axis], call.shape(0)[axis])
    return math.prod(shape[:-1]) // max(shape[axis], 1), length


def stft_axes(call: Call) -> tuple[int, int]:
    """The same, of STFT."""
    batch, frames, bins, _ = call.output_shape()
    return batch * frames, 2 * (bins - 1) if call.attribute("onesided", 1) else bins


def rfft_axes(call: Call) -> tuple[int, int]:
    """The same, of Rfft and Irfft."""
    shape, axes = call.shape(0), call.attribute("signal_ndim", 1)
    length = math.prod(shape[-axes:])
    return math.prod(shape) // max(length, 1), length
