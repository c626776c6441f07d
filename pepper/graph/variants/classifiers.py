"""Architectures that tell what an image shows, from AlexNet to ViT."""

import numpy as np

from pepper.graph.variants.network import Architecture, drawn_width

_RESOLUTIONS = (64, 96, 128, 160, 192, 224)


def _start(rng: np.random.Generator) -> Architecture:
    side = int(rng.choice(_RESOLUTIONS))
    return Architecture((3, side, side))


def plain(rng: np.random.Generator) -> Architecture:
    """Convolutions and poolings in a row, dense layers at the end (as AlexNet, VGG)."""
    net, width = _start(rng), drawn_width(rng, 16, 96)
    net.conv(width, int(rng.choice((3, 5, 7, 11))), int(rng.choice((1, 2, 4))))
    for _ in range(int(rng.integers(2, 5))):
        net.pool("MaxPool", int(rng.choice((2, 3))))
        width = min(2 * width, 512) if rng.random() < 0.8 else width
        groups = int(rng.choice((1, 1, 2)))
        for _ in range(int(rng.integers(1, 4))):
            net.conv(width, int(rng.choice((1, 3, 3, 5))), groups=groups)
        if rng.random() < 0.3:
            net.add("LRN", size=5, alpha=1e-4, beta=0.75)
        if net.shape[1] < 8:
            break
    hidden = [drawn_width(rng, 128, 4096) for _ in range(int(rng.integers(0, 3)))]
    while hidden and net.shape[1] > 8:
        net.pool()
    return net.classify(hidden)


def residual(rng: np.random.Generator) -> Architecture:
    """Blocks with a sum around them, plain or with a bottleneck (as ResNet)."""
    net, width = _start(rng), drawn_width(rng, 16, 96)
    bottleneck = int(rng.choice((1, 4)))
    groups = int(rng.choice((1, 1, 8)))
    net.conv(width, 7, 2)
    net.pool()
    for stage in range(int(rng.integers(2, 5))):
        for block in range(int(rng.integers(1, 4))):
            stride = 2 if stage and not block else 1
            start, shape = net.last, net.shape
            if bottleneck > 1:
                net.conv(width, 1)
                net.conv(width, 3, stride, groups)
                end = net.conv(width * bottleneck, 1, act="")
            else:
                net.conv(width, 3, stride)
                end = net.conv(width, 3, act="")
            if shape != net.shape:
                after = net.shape
                start = net.at(start, shape).conv(after[0], 1, stride, act="")
            net.add("Add", end, start)
            net.add("Relu")
        width *= 2
    return net.classify()


def inverted(rng: np.random.Generator) -> Architecture:
    """Wide depthwise convolutions between narrow ends (as MobileNet, EfficientNet, ShuffleNet)."""
    net, width = _start(rng), drawn_width(rng, 8, 32)
    act, kernel = str(rng.choice(("Relu", "HardSwish", "Sigmoid"))), int(rng.choice((3, 5)))
    expand, groups = int(rng.choice((1, 3, 4, 6))), int(rng.choice((1, 1, 4)))
    net.conv(width, 3, 2)
    for _ in range(int(rng.integers(3, 6))):
        for block in range(int(rng.integers(1, 5))):
            stride = 1 if block else 2
            start, shape = net.last, net.shape
            wide = shape[0] * expand
            if expand > 1:
                net.conv(wide, 1, groups=groups, act=act)
            if groups > 1:
                net.shuffle(groups)
            net.conv(wide, kernel, stride, wide, act=act)
            end = net.conv(width, 1, groups=groups, act="")
            if shape == net.shape:
                net.add("Add", end, start)
        width = min(8 * round(width * float(rng.uniform(1.2, 2)) / 8), 320)
    net.conv(4 * net.shape[0], 1)
    return net.classify()


def inception(rng: np.random.Generator) -> Architecture:
    """Branches of unlike kernels side by side, joined along the channels (as GoogLeNet, SqueezeNet)."""
    net, width = _start(rng), drawn_width(rng, 16, 96)
    net.conv(width, int(rng.choice((3, 7))), 2)
    net.pool()
    for stage in range(int(rng.integers(2, 4))):
        if stage:
            net.pool()
        for _ in range(int(rng.integers(1, 4))):
            start, shape = net.last, net.shape
            ends, widths = [], []
            for kernel in (1, 3, 5)[: int(rng.integers(2, 4))]:
                widths.append(drawn_width(rng, 16, 4 * width))
                net.at(start, shape)
                if kernel > 1:
                    net.conv(drawn_width(rng, 16, 2 * width), 1)
                ends.append(net.conv(widths[-1], kernel))
            if rng.random() < 0.5:
                net.at(start, shape).pool(str(rng.choice(("MaxPool", "AveragePool"))), 3, 1)
                widths.append(drawn_width(rng, 16, width))
                ends.append(net.conv(widths[-1], 1))
            net.concat(ends, widths)
        width *= 2
    return net.classify()


def dense(rng: np.random.Generator) -> Architecture:
    """Every layer reads all before it in its block, normalized first (as DenseNet)."""
    net, growth = _start(rng), drawn_width(rng, 8, 40)
    net.conv(2 * growth, 7, 2)
    net.pool()
    for stage in range(int(rng.integers(2, 4))):
        if stage:
            net.conv(net.shape[0] // 2, 1)
            net.pool("AveragePool", 2)
        for _ in range(int(rng.integers(2, 7))):
            start, shape = net.last, net.shape
            net.normalize()
            net.add("Relu")
            net.conv(4 * growth, 1)
            net.conv(growth, 3, act="")
            net.concat([start, net.last], [shape[0], growth])
    net.normalize()
    net.add("Relu")
    return net.classify()


def transformer(rng: np.random.Generator) -> Architecture:
    """Attention and two-layer perceptrons over an image's patches (as ViT)."""
    net, heads = _start(rng), int(rng.choice((2, 4, 8)))
    width, patch = heads * int(rng.choice((16, 32, 64))), int(rng.choice((8, 16)))
    net.patches(width, patch)
    net.tokens()
    for _ in range(int(rng.integers(1, 5))):
        start, shape = net.last, net.shape
        net.layer_norm()
        start = net.add("Add", net.attention(heads), start)
        net.layer_norm()
        net.add("Add", net.perceptron(int(rng.choice((2, 4))) * width), start, shape=shape)
    net.layer_norm()
    net.add("ReduceMean", axes=[1], keepdims=0, shape=(width,))
    net.dense(1000)
    return net
