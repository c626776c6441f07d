"""A model as the configuration names it: its file, its identity and what to feed it."""

from dataclasses import dataclass
from pathlib import Path

from pepper.config import ModelConfig
from pepper.errors import ModelError
from pepper.graph.parts import cut_part
from pepper.graph.source import (
    concrete_shapes,
    content_hash,
    external_files,
    model_hash,
    read_proto,
    real_inputs,
    resolve_path,
)


@dataclass(frozen=True)
class ModelFile:
    """An ONNX file that is ready to be measured.

    Attributes:
        name: How runs and tables call it.
        file: Where it is.
        content_hash: SHA-256 (hex) of the file and its external weights.
        shapes: A fixed shape for every input.
    """

    name: str
    file: Path
    content_hash: str
    shapes: dict[str, list[int]]


def find_model(config: ModelConfig) -> ModelFile:
    """Check that the model can be read and give each of its inputs a fixed shape.

    Raises:
        ModelError: The file is missing or corrupt, or a dynamic dimension has no value,
            or it has no such part.
    """
    file = resolve_path(config.path)
    proto = read_proto(file)
    shapes = concrete_shapes(real_inputs(proto.graph), config.shapes, config.dims, config.batch)
    digest = content_hash([file, *external_files(proto, file)])
    if config.part is None and config.grid is not None:
        raise ModelError(f"model.grid={config.grid}: which of its parts? give model.part=N, from 0")
    if config.part is None:
        return ModelFile(str(config.name), file.resolve(), digest, shapes)
    part = cut_part(file.resolve(), shapes, digest, config.part, config.part_seed, config.grid)
    proto = read_proto(part.file)
    return ModelFile(
        name=f"{config.name}[{part.start}:{part.end}]",
        file=part.file.resolve(),
        content_hash=content_hash([part.file, *external_files(proto, part.file)]),
        shapes=concrete_shapes(real_inputs(proto.graph), {}, {}, None),
    )


def changed(model: ModelFile) -> str | None:
    """Return how a model's file is no more what it was when it was found; None if it is."""
    try:
        found = model_hash(model.file)
    except ModelError as error:
        return str(error)
    if found == model.content_hash:
        return None
    return (
        f"{model.file}: was changed meanwhile (sha256 {found[:12]}, before {model.content_hash[:12]}); measure it again"
    )
