"""The manifest of a split: which parts a folder holds, and how they fit together."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pepper.config.placing import Precision
from pepper.documents import first_fault, read_json
from pepper.errors import ModelError, argument
from pepper.graph import source
from pepper.graph.source import TensorSpec

MANIFEST = "manifest.json"
FORMAT = 2
"""Raise it when parts are written in another way: what is kept of an earlier one is then made again."""


@dataclass(frozen=True)
class Part:
    """One part on disk.

    Attributes:
        file: The ONNX file, relative to the manifest.
        sha256: Hash of the file and of its external weights.
        weights_file: The file that holds its external weights, or None.
        operators: How many operators it has.
        inputs: Tensors to feed, by name: the model's inputs or outputs of earlier parts.
        outputs: Tensors that it gives: read by later parts, or outputs of the model.
        precision: What it computes in; its inputs and outputs are those of the model in any.
    """

    file: str
    sha256: str
    weights_file: str | None
    operators: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: Precision = Precision.fp32

    def is_intact(self, folder: Path) -> bool:
        """Whether its files in the folder are there, and as they were written."""
        files = [folder / name for name in (self.file, self.weights_file) if name]
        home = folder.resolve()
        inside = all(file.is_file() and file.resolve().is_relative_to(home) for file in files)
        possible = inside and files[0].stat().st_size <= source.MOST_FILE_BYTES
        return possible and source.content_hash(files) == self.sha256


@dataclass(frozen=True)
class Manifest:
    """Parts in the order in which they run. Tensors keep their names: what one part gives, a later one
    reads under the same name.

    Attributes:
        source: Path of the whole model.
        source_sha256: Hash of its file (external weights not included).
        inputs: The model's inputs.
        outputs: The model's outputs.
        shapes: The input shapes that the model was analysed at.
        cuts: Names of the tensors that cross at each cut.
        parts: The parts.
        proof: ``proved: ...`` where they were held against the whole and compute what it does; else ``not proved:
            ...``, with the reason.
    """

    source: str
    source_sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    shapes: dict[str, tuple[int, ...]]
    cuts: tuple[tuple[str, ...], ...]
    parts: tuple[Part, ...]
    proof: str = "not proved: written only"


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write the manifest of a split into its folder, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    draft = folder / f".{MANIFEST}"
    draft.write_text(json.dumps({"format": FORMAT, **asdict(manifest)}, indent=2) + "\n")
    draft.rename(folder / MANIFEST)


def is_split(folder: Path) -> bool:
    """Whether a folder holds a split of this or an earlier pepper, and nothing else."""
    file = folder / MANIFEST
    try:
        content = read_json(file) if file.is_file() else {}
        parts = content["parts"]
        names = {MANIFEST, *(part[key] for part in parts for key in ("file", "weights_file"))}
        own = "format" in content and "source_sha256" in content
    except (OSError, KeyError, TypeError, ValueError):
        return False
    return own and all(entry.name in names and not entry.is_dir() for entry in folder.iterdir())


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a split.

    Raises:
        ModelError: There is none, or it cannot be read.
    """
    from pydantic import ValidationError  # tenths of a second

    from pepper.graph.manifest_schema import ManifestSchema

    file = folder / MANIFEST
    try:
        content = read_json(file)
        if (form := content.pop("format", None)) != FORMAT:
            raise ValueError(f"format {form!r:.40}, not {FORMAT}")
        ManifestSchema.model_validate(content)
        return Manifest(
            source=content["source"],
            source_sha256=content["source_sha256"],
            inputs=_specs(content["inputs"]),
            outputs=_specs(content["outputs"]),
            shapes={name: tuple(shape) for name, shape in content["shapes"].items()},
            cuts=tuple(tuple(names) for names in content["cuts"]),
            parts=tuple(
                Part(
                    **{
                        **part,
                        "inputs": _specs(part["inputs"]),
                        "outputs": _specs(part["outputs"]),
                        "precision": Precision(part.get("precision", Precision.fp32)),  # earlier ones have none
                    }
                )
                for part in content["parts"]
            ),
            proof=content.get("proof") or Manifest.proof,
        )
    except FileNotFoundError:
        raise ModelError(f"{file}: no such file; {_make_parts(folder)}") from None
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror}); {_make_parts(folder)}") from error
    except ValueError as error:
        said = first_fault(error) if isinstance(error, ValidationError) else error
        raise ModelError(f"{file}: not a manifest that pepper can read ({said}); split again") from error


def _make_parts(folder: Path) -> str:
    return f"make parts with task=split {argument('split.out', folder)}"


def _specs(entries: Sequence[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    shapes = (None if entry["shape"] is None else tuple(entry["shape"]) for entry in entries)
    return tuple(TensorSpec(e["name"], e["dtype"], shape) for e, shape in zip(entries, shapes, strict=True))
