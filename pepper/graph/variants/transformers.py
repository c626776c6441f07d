"""Transformers over tokens: encoders, a decoder's step with its cache, one sequence that attends to another, ViT."""

import numpy as np
from onnx import TensorProto

from pepper.graph.variants.network import Architecture

_LENGTHS = (16, 32, 64, 128, 256, 384)
_VOCABULARY = (1000, 4000, 16000)


def _heads(rng: np.random.Generator) -> tuple[int, int]:
    """Draw heads, and the width of all of them."""
    heads = int(rng.choice((2, 4, 6, 8, 12)))
    return heads, heads * int(rng.choice((32, 64)))


def _words(rng: np.random.Generator, width: int) -> Architecture:
    """Begin with tokens by number, looked up."""
    length = int(rng.choice(_LENGTHS))
    net = Architecture((length,), TensorProto.INT64)
    net.embed("input", length, int(rng.choice(_VOCABULARY)), width)
    return net


def _positions(net: Architecture) -> str:
    return net.add("Add", net.last, net.weight(net.shape, 0.01))


def encoder(rng: np.random.Generator) -> Architecture:
    """Words and which of them count, normalized after each sum (as BERT)."""
    heads, width = _heads(rng)
    net = _words(rng, width)
    words, (length, _) = net.last, net.shape
    net.input("mask", (length,), TensorProto.INT64)
    net.add("Cast", to=TensorProto.FLOAT)
    net.add("Unsqueeze", net.last, net.ints((1, 2)), shape=(1, 1, length))
    net.add("Sub", net.weight((1,), 1.0), net.last)
    mask = net.add("Mul", net.last, net.weight((1,), -1e4))
    net.at(words, (length, width))
    _positions(net)
    start, wide = net.layer_norm(), int(rng.choice((2, 4)))
    for _ in range(int(rng.integers(1, 7))):
        net.add("Add", net.attention(heads, mask=mask), start)
        start = net.layer_norm()
        net.add("Add", net.perceptron(wide * width), start)
        start = net.layer_norm()
    return net


def cross_attention(rng: np.random.Generator) -> Architecture:
    """Words that attend to those before them, and to a longer or shorter memory (as T5, Whisper)."""
    heads, width = _heads(rng)
    net = _words(rng, width)
    words, shape = net.last, net.shape
    others = (int(rng.choice((*_LENGTHS, 750))), width)
    memory = net.input("memory", others)
    net.at(words, shape)
    start, wide = _positions(net), int(rng.choice((2, 4)))
    before = net.weight((shape[0], shape[0]), -0.1)  # as long as a triangle of great numbers takes
    for _ in range(int(rng.integers(1, 5))):
        net.layer_norm()
        start = net.add("Add", net.attention(heads, mask=before), start)
        net.layer_norm()
        start = net.add("Add", net.attention(heads, (memory, others)), start)
        net.layer_norm()
        start = net.add("Add", net.perceptron(wide * width), start)
    net.layer_norm()
    return net


def vision(rng: np.random.Generator) -> Architecture:
    """Patches of an image and a token for its class (as ViT, DeiT)."""
    heads, width = _heads(rng)
    side, patch = int(rng.choice((96, 128, 160, 192, 224))), int(rng.choice((8, 16, 32)))
    net = Architecture((3, side, side))
    net.patches(width, patch)
    patches = net.tokens()
    net.add("Concat", net.weight((1, 1, width), 0.1), patches, shape=(net.shape[0] + 1, width), axis=1)
    start, wide = _positions(net), int(rng.choice((2, 4)))
    for _ in range(int(rng.integers(1, 7))):
        net.layer_norm()
        start = net.add("Add", net.attention(heads), start)
        net.layer_norm()
        start = net.add("Add", net.perceptron(wide * width), start)
    net.layer_norm()
    net.add("Gather", net.last, net.ints((0,)), shape=(1, width), axis=1)
    net.project(1000)
    return net


def decoder_step(rng: np.random.Generator) -> Architecture:
    """The next token after those whose keys and values are kept (as Llama): its logits, and the longer cache."""
    heads, width = _heads(rng)
    size, past = width // heads, int(rng.choice((15, 63, 127, 255, 511, 1023)))
    net = Architecture((1,), TensorProto.INT64)
    net.embed("input", 1, int(rng.choice(_VOCABULARY)), width)
    hidden = 32 * round(width * float(rng.choice((2.0, 8 / 3, 4.0))) / 32)
    for layer in range(int(rng.integers(1, 7))):
        start, shape = net.last, net.shape
        net.root_mean_square()
        normal, sides = net.last, []
        for name in ("query", "key", "value"):
            net.at(normal, shape).project(width)
            net.add("Reshape", net.last, net.ints((1, 1, heads, size)), shape=(1, heads, size))
            net.add("Transpose", perm=(0, 2, 1, 3), shape=(heads, 1, size))
            if name != "value":
                net.rotate()
            if name != "query":
                now = net.last
                kept = net.input(f"past_{name}{layer}", (heads, past, size))
                net.add("Concat", kept, now, shape=(heads, past + 1, size), axis=2)
                net.output()
            if name == "key":
                net.add("Transpose", perm=(0, 1, 3, 2), shape=(heads, size, past + 1))
            sides.append(net.last)
        start = net.add("Add", net.attend(heads, 1, past + 1, width, sides), start, shape=shape)
        net.root_mean_square()
        normal = net.last
        gate = (net.project(hidden), net.act("Silu"))[1]
        net.add("Mul", gate, net.at(normal, shape).project(hidden))
        net.add("Add", net.project(width), start)
    net.root_mean_square()
    net.project(int(rng.choice(_VOCABULARY)))
    return net
