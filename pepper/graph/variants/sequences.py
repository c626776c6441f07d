"""Networks over what comes one after another: recurrent layers, convolutions in time; and looked-up features."""

import numpy as np
from onnx import TensorProto

from pepper.graph.variants.network import Architecture, drawn_width


def _layers(net: Architecture, rng: np.random.Generator, kind: str) -> Architecture:
    """Stack recurrent layers over tokens."""
    net.add("Transpose", perm=(1, 0, 2))
    hidden, directions = drawn_width(rng, 32, 512), int(rng.choice((1, 2)))
    for _ in range(int(rng.integers(1, 4))):
        net.recurrent(kind, hidden, directions)
    net.add("Transpose", perm=(1, 0, 2))
    return net


def _recurrent(rng: np.random.Generator, kind: str) -> Architecture:
    steps, width = int(rng.choice((1, 8, 16, 32, 64, 128, 256))), drawn_width(rng, 16, 256)
    if rng.random() < 0.5:
        net = Architecture((steps, width))
    else:
        net = Architecture((steps,), TensorProto.INT64)
        net.embed("input", steps, int(rng.choice((1000, 10000, 50000))), width)
    _layers(net, rng, kind)
    net.project(int(rng.choice((2, 32, 1000))))
    return net


def lstm(rng: np.random.Generator) -> Architecture:
    """Layers of long short-term memory over words or features, one way or both."""
    return _recurrent(rng, "LSTM")


def gru(rng: np.random.Generator) -> Architecture:
    """Layers of gated recurrent units over words or features, one way or both."""
    return _recurrent(rng, "GRU")


def convolutional_recurrent(rng: np.random.Generator) -> Architecture:
    """Convolutions over a line of text or a spectrogram, then recurrent layers along it (as CRNN, DeepSpeech)."""
    net = Architecture((int(rng.choice((1, 3))), int(rng.choice((32, 48, 64))), int(rng.choice((96, 160, 320)))))
    width = drawn_width(rng, 16, 64)
    for _ in range(int(rng.integers(2, 5))):
        net.conv(width)
        net.pool("MaxPool", 2)
        width = min(2 * width, 256)
    depth, height, length = net.shape
    net.add("Transpose", perm=(0, 3, 1, 2))
    net.add("Reshape", net.last, net.ints((1, length, depth * height)), shape=(length, depth * height))
    net.project(drawn_width(rng, 64, 256))
    _layers(net, rng, str(rng.choice(("LSTM", "GRU"))))
    net.project(int(rng.choice((40, 100, 1000))))
    net.add("Softmax", axis=-1)
    return net


def temporal(rng: np.random.Generator) -> Architecture:
    """One-dimensional convolutions over samples, each layer twice as far apart as the one before (as WaveNet)."""
    net, width = (
        Architecture((int(rng.choice((1, 40, 80))), int(rng.choice((128, 512, 2048))))),
        drawn_width(rng, 16, 192),
    )
    kernel, gated = int(rng.choice((3, 5))), bool(rng.random() < 0.5)
    net.conv(width, kernel)
    for _ in range(int(rng.integers(1, 4))):
        for power in range(int(rng.integers(2, 6))):
            start, shape = net.last, net.shape
            net.conv(width, kernel, act="Tanh" if gated else "Relu", dilation=2**power)
            if gated:
                value = net.last
                net.add("Mul", value, net.at(start, shape).conv(width, kernel, act="Sigmoid", dilation=2**power))
            net.add("Add", net.conv(width, 1, act=""), start)
    net.conv(int(rng.choice((32, 256))), 1, act="")
    return net


def recommender(rng: np.random.Generator) -> Architecture:
    """Tables of embeddings beside dense features, every pair of them multiplied (as DLRM)."""
    fields, width = int(rng.integers(3, 13)), int(rng.choice((8, 16, 32, 64)))
    rows, several = int(rng.choice((1000, 10000, 50000))), int(rng.choice((1, 1, 8, 32)))
    net = Architecture((13,))
    for hidden in (drawn_width(rng, 64, 512), drawn_width(rng, 64, 256), width):
        net.dense(hidden)
        net.add("Relu")
    found = [net.add("Reshape", net.last, net.ints((1, 1, width)), shape=(1, width))]
    for field in range(fields):
        ids = net.input(f"field{field}", (several,), TensorProto.INT64)
        net.embed(ids, several, rows, width)
        found.append(net.add("ReduceSum", net.last, net.ints((1,)), shape=(1, width), keepdims=1))
    every = net.add("Concat", *found, shape=(fields + 1, width), axis=1)
    turned = net.add("Transpose", perm=(0, 2, 1))
    net.macs += (fields + 1) ** 2 * width
    net.add("MatMul", every, turned, shape=(fields + 1, fields + 1))
    net.add("Flatten", shape=((fields + 1) ** 2,))
    for hidden in (drawn_width(rng, 64, 1024), drawn_width(rng, 64, 512)):
        net.dense(hidden)
        net.add("Relu")
    net.dense(1)
    net.add("Sigmoid")
    return net
