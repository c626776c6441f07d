"""Generated architectures, so that a latency model sees more than the networks at hand.

A variant is the same model wherever it is made: all its choices come from one random generator seeded with its
number and family. Widths, depths, kernels, lengths and resolutions are drawn, and of several networks the one is
taken that is closest to a number of multiply-accumulates drawn before. Weights are filled by ConstantOfShape
operators, which runtimes fold: a file takes some kilobytes, and values do not matter for the time.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from onnx import ModelProto, save

from pepper.caches import cache_folder
from pepper.errors import ModelError, nearest
from pepper.graph.variants import classifiers, images, precisions, sequences, transformers
from pepper.graph.variants.network import Architecture

VERSION = 1  # raise it when a number means another model
SCHEME = "variant://"
_DRAWS = 30

Build = Callable[[np.random.Generator], Architecture]


class VariantFamily(NamedTuple):
    """Architectures of one kind.

    Attributes:
        builds: Each draws one; they take turns at random.
        least_macs: Fewest multiply-accumulates that are wanted.
        most_macs: Most of them.
        rewrite: Writes what was built in another precision.
    """

    builds: tuple[Build, ...]
    least_macs: float = 50e6
    most_macs: float = 5000e6
    rewrite: Callable[[ModelProto], ModelProto] | None = None


CLASSIFIERS: tuple[Build, ...] = (
    classifiers.plain,
    classifiers.residual,
    classifiers.inverted,
    classifiers.inception,
    classifiers.dense,
    classifiers.transformer,
)
"""In the order in which they take turns where a variant is a number alone."""
_CONVOLUTIONS = (classifiers.plain, classifiers.residual, classifiers.inverted, images.unet)

FAMILIES: dict[str, VariantFamily] = {
    **{build.__name__: VariantFamily((build,)) for build in CLASSIFIERS},
    "separable": VariantFamily((images.separable,)),
    "dilated": VariantFamily((images.dilated,)),
    "unet": VariantFamily((images.unet,)),
    "detector": VariantFamily((images.detector,)),
    "encoder": VariantFamily((transformers.encoder,), 20e6),
    "vision": VariantFamily((transformers.vision,)),
    "cross_attention": VariantFamily((transformers.cross_attention,), 20e6),
    "decoder_step": VariantFamily((transformers.decoder_step,), 1e6, 60e6),  # each is a weight that is held
    "lstm": VariantFamily((sequences.lstm,), 1e6, 500e6),
    "gru": VariantFamily((sequences.gru,), 1e6, 500e6),
    "convolutional_recurrent": VariantFamily((sequences.convolutional_recurrent,), 20e6, 2000e6),
    "temporal": VariantFamily((sequences.temporal,), 10e6, 2000e6),
    "recommender": VariantFamily((sequences.recommender,), 1e5, 2e6),
    "qdq": VariantFamily((*_CONVOLUTIONS, transformers.encoder, transformers.vision), rewrite=precisions.qdq),
    "int8": VariantFamily((*_CONVOLUTIONS, transformers.encoder, transformers.vision), rewrite=precisions.integers),
    "float16": VariantFamily(
        (*_CONVOLUTIONS, transformers.encoder, transformers.vision), 50e6, 1000e6, rewrite=precisions.half
    ),
}
"""Families by name."""

REFUSED = {"bfloat16": "onnxruntime's CPU provider has no kernels for bfloat16"}
"""Families that nothing would run, and why."""


def variant_file(address: str) -> Path:
    """Return the file of a variant, made on first use in the user's cache.

    Args:
        address: ``N``, which takes one of `CLASSIFIERS` in turn, or ``FAMILY-N``.

    Raises:
        ModelError: There is no such family, or no such number.
    """
    found = re.fullmatch(r"(?:([a-z]\w*)-)?([0-9]+)", address)
    if found is None:
        raise ModelError(
            f"model.path={SCHEME}{address}: a variant is a number of at least 0, or a family's;"
            f" give model.path={SCHEME}N or {SCHEME}FAMILY-N, such as {SCHEME}lstm-0"
        )
    family, number = found[1], int(found[2])
    if family in REFUSED:
        raise ModelError(f"model.path={SCHEME}{address}: {REFUSED[family]}; take float16-{number} or int8-{number}")
    if family is not None and family not in FAMILIES:
        raise ModelError(
            f"model.path={SCHEME}{address}: no family {family!r}{nearest(family, FAMILIES)}; there are"
            f" {', '.join(FAMILIES)}"
        )
    file = cache_folder("variants") / f"variant{address}-v{VERSION}.onnx"
    if not file.is_file():
        made = file.with_suffix(f".{os.getpid()}")
        save(variant(number, family), made)
        made.rename(file)
    return file


def variant(number: int, family: str | None = None) -> ModelProto:
    """Build a variant.

    Args:
        number: At least 0.
        family: One of `FAMILIES`; None takes one of `CLASSIFIERS` by ``number % 6``.
    """
    name, seed = family, [VERSION, number]
    if name is None:
        name = CLASSIFIERS[number % len(CLASSIFIERS)].__name__
    else:
        seed += list(name.encode())
    chosen, rng = FAMILIES[name], np.random.default_rng(seed)
    wanted = np.exp(rng.uniform(np.log(chosen.least_macs), np.log(chosen.most_macs)))
    several = len(chosen.builds) > 1
    drawn = [chosen.builds[int(rng.integers(len(chosen.builds))) if several else 0](rng) for _ in range(_DRAWS)]
    closest = min(drawn, key=lambda network: abs(np.log(network.macs / wanted)))
    model = closest.model(f"variant{number}_{name}")
    return chosen.rewrite(model) if chosen.rewrite else model
