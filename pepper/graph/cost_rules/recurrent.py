"""LSTM, GRU and RNN, float or quantised."""

import math

from pepper.graph.cost_kinds import Call, Product, Work


def recurrent(call: Call) -> Work:
    """The input product at once, the recurrent one step by step, for each direction.

    A step needs what the one before gives: each is a kernel of its own, and reads the recurrent matrix again.

    Weights hold all gates of all directions, whatever way round a quantiser has written their matrices. Sequences
    that are shorter than the longest (``sequence_lens``) are only known as the model runs: all count as the longest.
    """
    data, weight, recurrence = call.shape(0), call.shape(1), call.shape(2)
    steps, batch = data[:2] if not call.attribute("layout", 0) else data[1::-1]
    hidden = call.attribute("hidden_size") or min(recurrence[1:])
    products = (
        Product(1, steps * batch, data[2], math.prod(weight) // max(data[2], 1)),
        Product(steps, batch, hidden, math.prod(recurrence) // hidden),
    )
    read_bytes = call.sizes(*call.inputs) + (steps - 1) * call.sizes(call.inputs[2])
    return Work("recurrent", products, read_bytes, launches=max(steps, 1))
