"""What is run: which parts on which devices. Plain values, free of plans and predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pepper.errors import ExecutionError, nearest
from pepper.graph.manifest import Manifest
from pepper.graph.source import TensorSpec


@dataclass(frozen=True)
class PlacedPart:
    """A part and its device.

    Attributes:
        file: The ONNX file.
        sha256: Hash of the file: what makes two parts the same.
        reads: Names of its inputs.
        gives: Names of its outputs.
        device: Name of its device.
    """

    file: Path
    sha256: str
    reads: tuple[str, ...]
    gives: tuple[str, ...]
    device: str


@dataclass(frozen=True)
class Way:
    """What one part hands to another.

    Attributes:
        sender: The part's number, from 1; 0 for the driver with the request.
        receiver: Likewise; one more than there are parts for the driver, who takes the answer.
        carry: Names of the tensors.
    """

    sender: int
    receiver: int
    carry: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """Parts on devices, in the order in which they run.

    Attributes:
        parts: The parts.
        inputs: What a request must bring.
        outputs: Names of the tensors that the answer brings.
        direct: Whether each part hands what it gives straight to those that read it, so that parts run side by side;
            else to the next part, with what it only passes on.
    """

    parts: tuple[PlacedPart, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    direct: bool = False

    @classmethod
    def of(cls, manifest: Manifest, folder: Path, devices: Sequence[str], direct: bool = False) -> "Layout":
        """Place the parts of a split.

        Args:
            manifest: The split.
            folder: Where its files are.
            devices: A device's name for each part.
            direct: As of the class.

        Raises:
            ExecutionError: A part's file is missing, or there is not one device a part.
        """
        if len(devices) != len(manifest.parts):
            raise ExecutionError(f"{folder}: {len(manifest.parts)} parts, but {len(devices)} devices for them")
        for part in manifest.parts:
            if not (folder / part.file).is_file():
                raise ExecutionError(f"{folder / part.file}: no such part; split the model again")
        return cls(
            tuple(
                PlacedPart(
                    folder / part.file,
                    part.sha256,
                    tuple(spec.name for spec in part.inputs),
                    tuple(spec.name for spec in part.outputs),
                    device,
                )
                for part, device in zip(manifest.parts, devices, strict=True)
            ),
            manifest.inputs,
            tuple(spec.name for spec in manifest.outputs),
            direct,
        )

    def on(self, devices: Sequence[str]) -> "Layout":
        """Return the same parts on other devices, one for each part."""
        parts = (replace(part, device=device) for part, device in zip(self.parts, devices, strict=True))
        return replace(self, parts=tuple(parts))

    @property
    def devices(self) -> tuple[str, ...]:
        """The device of each part."""
        return tuple(part.device for part in self.parts)

    @cached_property
    def ways(self) -> tuple[Way, ...]:
        """Who hands what to whom, by receivers; each part has a way to it and one from it."""
        last = len(self.parts) + 1
        if not self.direct:
            return tuple(Way(border, border + 1, tuple(self.carried(border))) for border in range(last))
        giver = {spec.name: 0 for spec in self.inputs}
        ways: dict[tuple[int, int], list[str]] = {}
        for number, reads in enumerate((*(part.reads for part in self.parts), self.outputs), 1):
            for name in reads:
                ways.setdefault((giver[name], number), []).append(name)
            if number < last:
                giver |= dict.fromkeys(self.parts[number - 1].gives, number)
        for number in range(1, last):
            if all(receiver != number for _, receiver in ways):
                ways[0, number] = []
            if all(sender != number for sender, _ in ways):
                ways[number, last] = []
        return tuple(Way(*ends, tuple(ways[ends])) for ends in sorted(ways, key=lambda ends: ends[::-1]))

    @cached_property
    def senders(self) -> tuple[tuple[int, ...], ...]:
        """Of each part, and last of the driver: whose messages it waits for."""
        found: list[list[int]] = [[] for _ in range(len(self.parts) + 1)]
        for way in self.ways:
            found[way.receiver - 1].append(way.sender)
        return tuple(map(tuple, found))

    def carried(self, border: int) -> list[str]:
        """Return the names of the tensors that travel to part ``border`` (0: requests, the last: answers).

        A tensor that only later parts read, or that is an output of the model, is carried along.
        """
        known = dict.fromkeys(spec.name for spec in self.inputs)
        for part in self.parts[:border]:
            known |= dict.fromkeys(part.gives)
        wanted = {name for part in self.parts[border:] for name in part.reads} | set(self.outputs)
        return [name for name in known if name in wanted]


def check_inputs(wanted: Sequence[TensorSpec], given: Mapping[str, Any]) -> None:
    """Make sure that a request brings what the model takes.

    Raises:
        ExecutionError: A tensor is missing, unknown, or of another type or shape.
    """
    names = [spec.name for spec in wanted]
    for name in given:
        if name not in names:
            raise ExecutionError(f"input {name!r}: the model has none of that name{nearest(name, names)}")
    for spec in wanted:
        if spec.name not in given:
            raise ExecutionError(f"input {spec.name!r}: is missing; give it ({_kind(spec)})")
        array = given[spec.name]
        fits = spec.shape is None or (
            len(array.shape) == len(spec.shape)
            and all(not isinstance(s, int) or s == found for s, found in zip(spec.shape, array.shape, strict=True))
        )
        if not fits or array.dtype.name != numpy_name(spec.dtype):
            shape = "x".join(map(str, array.shape))
            raise ExecutionError(f"input {spec.name!r}: is {array.dtype.name} {shape}; the model takes {_kind(spec)}")


_NUMPY_NAMES = {"float": "float32", "double": "float64", "string": "object"}


def numpy_name(dtype: str) -> str:
    """Return numpy's name of an ONNX type."""
    return _NUMPY_NAMES.get(dtype, dtype)


def _kind(spec: TensorSpec) -> str:
    shape = "of any shape" if spec.shape is None else "x".join("?" if s is None else str(s) for s in spec.shape)
    return f"{numpy_name(spec.dtype)} {shape}"
