"""Networks over images that tell more than what one shows: a label a pixel, boxes; and depthwise convolutions."""

import numpy as np

from pepper.graph.variants.network import Architecture, drawn_width

_SIDES = (64, 96, 128, 160, 192, 224, 320)  # all can be halved five times
_CLASSES = 80
_BEST = 100  # boxes that a detector gives


def _start(rng: np.random.Generator) -> Architecture:
    side = int(rng.choice(_SIDES))
    return Architecture((3, side, side))


def separable(rng: np.random.Generator) -> Architecture:
    """Depthwise convolutions of small to large kernels, some dilated, between pointwise ones (as ConvNeXt)."""
    net, width = _start(rng), drawn_width(rng, 16, 96)
    kernel, act = int(rng.choice((3, 5, 7, 9))), str(rng.choice(("Relu", "Silu", "HardSwish")))
    dilation, wide = int(rng.choice((1, 1, 2))), int(rng.choice((1, 2, 4)))
    net.patches(width, int(rng.choice((2, 4))))
    for stage in range(int(rng.integers(2, 5))):
        if stage:
            width = min(2 * width, 512)
            net.conv(width, 3, 2, act=act)
        for _ in range(int(rng.integers(1, 5))):
            start = net.last
            net.conv(width, kernel, groups=width, act="", dilation=dilation)
            net.conv(wide * width, 1, act=act)
            net.add("Add", net.conv(width, 1, act=""), start)
    return net.classify()


def dilated(rng: np.random.Generator) -> Architecture:
    """A label a pixel: convolutions ever further apart, then side by side (as DeepLab)."""
    net, width = _start(rng), drawn_width(rng, 16, 64)
    net.conv(width, 3, 2)
    for _ in range(2):
        width *= 2
        net.conv(width, 3, 2)
    for rate in (2, 4, 8)[: int(rng.integers(1, 4))]:
        start = net.last
        net.conv(width, 3, dilation=rate)
        net.add("Add", net.conv(width, 3, act="", dilation=rate), start)
        net.add("Relu")
    start, shape, narrow = net.last, net.shape, drawn_width(rng, 16, 2 * width)
    ends = [net.at(start, shape).conv(narrow, 1)]
    rates = (1, 2, 3)[: int(rng.integers(2, 4))]
    ends += [net.at(start, shape).conv(narrow, 3, dilation=rate) for rate in rates]
    net.at(start, shape).add("GlobalAveragePool", shape=(width, 1, 1))
    net.conv(narrow, 1)
    ends.append(net.resize(shape[1]))
    net.concat(ends, [narrow] * len(ends))
    net.conv(narrow, 1)
    net.conv(int(rng.choice((2, 21))), 1, act="")
    net.resize(8 * shape[1], "linear")
    return net


def unet(rng: np.random.Generator) -> Architecture:
    """A value a pixel: down, and up again beside what was on the way (as U-Net)."""
    net, width = _start(rng), drawn_width(rng, 8, 48)
    transposed, kernel = bool(rng.random() < 0.5), int(rng.choice((3, 3, 5)))
    passed = []
    for _ in range(int(rng.integers(2, 5))):
        net.conv(width, kernel)
        net.conv(width, kernel)
        passed.append((net.last, net.shape))
        net.pool("MaxPool", 2)
        width *= 2
    net.conv(width, kernel)
    net.conv(width, kernel)
    for beside, shape in reversed(passed):
        width //= 2
        if transposed:
            net.transposed_conv(width)
        else:
            net.resize(shape[1])
            net.conv(width, 1)
        net.concat([beside, net.last], [shape[0], width])
        net.conv(width, kernel)
        net.conv(width, kernel)
    net.conv(int(rng.choice((1, 3))), 1, act="")
    net.add("Sigmoid")
    return net


def detector(rng: np.random.Generator) -> Architecture:
    """The likeliest boxes: three scales, joined from coarse to fine, of each all boxes, then the best (as YOLO)."""
    net, width = _start(rng), drawn_width(rng, 16, 48)
    act = str(rng.choice(("Relu", "Silu")))
    net.conv(width, 3, 2, act=act)
    scales = []
    for _ in range(4):
        width *= 2
        net.conv(width, 3, 2, act=act)
        for _ in range(int(rng.integers(0, 3))):
            start = net.last
            net.conv(width // 2, 1, act=act)
            net.add("Add", net.conv(width, 3, act=act), start)
        scales.append((net.last, net.shape))
    narrow, ends, boxes = drawn_width(rng, 32, 128), [], 0
    for number, (start, shape) in enumerate(reversed(scales[1:])):
        side, coarse = shape[1], net.last
        net.at(start, shape).conv(narrow, 1, act=act)
        if number:
            beside = net.last
            net.at(coarse, (narrow, side // 2, side // 2)).resize(side)
            net.add("Add", net.last, beside)
        merged = net.conv(narrow, 3, act=act)
        net.conv(4 + _CLASSES, 1, act="")
        ends.append(net.tokens())
        boxes += side * side
        net.at(merged, (narrow, side, side))
    every = net.add("Concat", *ends, shape=(boxes, 4 + _CLASSES), axis=1)
    corners = net.slice(0, 4)
    net.at(every, (boxes, 4 + _CLASSES)).slice(4, 4 + _CLASSES)
    net.add("Sigmoid")
    net.add("ReduceMax", axes=[2], keepdims=0, shape=(boxes,))
    kept = min(boxes, _BEST)
    net.add("Unsqueeze", net.top(kept), net.ints((2,)), shape=(kept, 1))
    net.add("Expand", net.last, net.ints((1, kept, 4)), shape=(kept, 4))
    net.add("GatherElements", corners, net.last, axis=1)
    return net
