"""A model in other precisions than its own: what is known of each, and how far answers then lie from its own."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pepper.config import PepperConfig
from pepper.config.placing import Precision
from pepper.errors import ConfigError, ExecutionError, argument, nearest
from pepper.graph.cuts import cut_behind
from pepper.graph.inputs import Array, InputSpec, read_arrays
from pepper.graph.ir import Graph
from pepper.graph.precisions import parts_as, whole_as
from pepper.graph.rounding import Values, difference, untold
from pepper.graph.running import open_whole, random_inputs, run_parts, specs_of
from pepper.graph.source import content_hash
from pepper.graph.split import split
from pepper.placement.accuracy import Accuracy

DRAWN = 4
"""Samples, where none are given."""

Span = tuple[int, int, Precision]
"""A part: operators before its start and before its end, and its precision."""


@dataclass(frozen=True)
class Samples:
    """Inputs on which ranges of 8 bits, and differences, are measured.

    Attributes:
        values: Inputs by name, each a sample.
        file: Where they were given; None where they were drawn.
        seed: Of what was drawn.
    """

    values: tuple[Values, ...]
    file: Path | None
    seed: int

    @classmethod
    def of(cls, graph: Graph, file: str | None, seed: int) -> "Samples":
        """Read or draw samples.

        Args:
            graph: The model.
            file: Where they are given, see ``place.calibration``; None draws.
            seed: Of what is drawn.

        Raises:
            ConfigError: The file is none, or its arrays are not the model's inputs.
        """
        if file is None:
            return cls(tuple(random_inputs(graph, seed + number) for number in range(DRAWN)), None, seed)
        key = argument("place.calibration", file)
        try:
            arrays = read_arrays(Path(file).expanduser())
        except ValueError as error:
            raise ConfigError(
                f"{key}: cannot be read ({error}); give an .npz file of arrays by input name, each with one axis more"
                " than the input, for the samples"
            ) from error
        return cls(_samples(key, specs_of(graph), arrays), Path(file).expanduser().absolute(), seed)

    @classmethod
    def of_plan(cls, graph: Graph, accuracy: Accuracy, name: str) -> "Samples":
        """Read or draw the samples that a plan was made with.

        Raises:
            ExecutionError: Their file is gone, or has changed.
        """
        file = accuracy.calibration
        if file is not None and (not Path(file).is_file() or content_hash([Path(file)]) != accuracy.sha256):
            raise ExecutionError(
                f"{name}: its parts in 8 bits take their ranges from {file}, which is gone or has changed; place the"
                " model again"
            )
        return cls.of(graph, file, accuracy.seed)

    @property
    def said(self) -> str:
        """What they are."""
        count = f"{len(self.values)} {'random ' if self.file is None else ''}sample{'s' * (len(self.values) != 1)}"
        return count if self.file is None else f"{count} of {self.file}"


def _samples(key: str, inputs: Sequence[InputSpec], arrays: Mapping[str, Array]) -> tuple[Values, ...]:
    known = [spec.name for spec in inputs]
    for name in arrays:
        if name not in known:
            raise ConfigError(f"{key}: the model has no input {name!r}{nearest(name, known)} ({', '.join(known)})")
    stacked: dict[str, Array] = {}
    for spec in inputs:
        if spec.name not in arrays:
            raise ConfigError(f"{key}: holds no {spec.name!r}; give an array for each input ({', '.join(known)})")
        array, wanted = arrays[spec.name], spec.draw(np.random.default_rng(0)).dtype
        array = array[None] if array.shape == spec.shape else array
        if array.shape[1:] != spec.shape or not len(array) or array.dtype != wanted:
            shape = ",".join(["SAMPLES", *map(str, spec.shape)])
            raise ConfigError(
                f"{key}: {spec.name!r} has shape {array.shape} of {array.dtype}; give [{shape}] of {wanted}"
            )
        stacked[spec.name] = array
    counts = {len(array) for array in stacked.values()}
    if len(counts) > 1:
        raise ConfigError(f"{key}: holds {' and '.join(map(str, sorted(counts)))} samples of its inputs; give as many")
    return tuple({name: array[number] for name, array in stacked.items()} for number in range(min(counts, default=0)))


class Forms:
    """A model in the precisions that parts may run in.

    Args:
        config: The whole configuration.
        graph: The model.

    Attributes:
        graph: The model.
        graphs: The whole model in each precision, by precision.
        samples: What differences are measured on.
        max_error: The difference that is accepted.

    Raises:
        ConfigError: The samples are not the model's.
        ModelError: The model cannot be made in one of them.
    """

    def __init__(self, config: PepperConfig, graph: Graph) -> None:
        place = config.place
        self.graph, self.max_error = graph, place.max_error
        self.samples = Samples.of(graph, place.calibration, place.seed)
        self.graphs: dict[Precision, Graph] = {}
        self._errors: dict[tuple[Span, ...], float] = {}
        with tempfile.TemporaryDirectory(prefix="pepper-forms-") as folder:
            for precision in dict.fromkeys(place.variants):
                own = precision == Precision.fp32
                made = graph if own else whole_as(graph, precision, self.samples.values, Path(folder))
                self.graphs[precision] = made

    @cached_property
    def expected(self) -> list[Values]:
        """What the model makes of each sample.

        Raises:
            ModelError: onnxruntime cannot run it.
        """
        whole = open_whole(self.graph, 0)
        return [whole(feeds) for feeds in self.samples.values]

    @cached_property
    def untold(self) -> dict[str, str]:
        """Outputs whose error says nothing, with the reason."""
        return untold(self.graph, self.samples.values, self.expected)

    def error(self, parts: Sequence[Span]) -> float:
        """Measure how far the answers of a model in parts lie from its own; see ``place.max_error``.

        Raises:
            ModelError: A part cannot be made, or onnxruntime cannot run it.
        """
        key = tuple(parts)
        if key not in self._errors:
            self._errors[key] = self._measured(key)
        return self._errors[key]

    def accuracy(self, parts: Sequence[Span]) -> Accuracy:
        """Return the same with what it was measured on."""
        file = self.samples.file
        return Accuracy(
            self.error(parts),
            self.max_error,
            len(self.samples.values),
            None if file is None else str(file),
            None if file is None else content_hash([file]),
            self.samples.seed,
        )

    def _measured(self, parts: Sequence[Span]) -> float:
        with tempfile.TemporaryDirectory(prefix="pepper-forms-") as name:
            folder = Path(name) / "parts"
            manifest = split(self.graph, [cut_behind(self.graph, start) for start, _, _ in parts[1:]], folder)
            manifest = parts_as(manifest, folder, [precision for *_, precision in parts], self.samples.values)
            got = [run_parts(manifest, folder, feeds) for feeds in self.samples.values]
        return max(
            difference(run[name], values[name]) for run, values in zip(self.expected, got, strict=True) for name in run
        )
