"""What may stand in the manifest of a split, checked whole before anything of it is used."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from pepper.documents import plain_name
from pepper.graph.onnx_types import DTYPES
from pepper.strict import StrictModel

_MOST = 2**63 - 1

Text = Annotated[str, StringConstraints(max_length=65536)]
FileName = Annotated[str, AfterValidator(plain_name)]
"""Of a file in the manifest's own folder: it leads nowhere else."""
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0, le=_MOST)]


def _known(dtype: str) -> str:
    if dtype not in DTYPES.values() and dtype != "undefined":  # what is no tensor has no element type
        raise ValueError("is no element type")
    return dtype


class _Tensor(StrictModel):
    name: Text
    dtype: Annotated[str, AfterValidator(_known)]
    shape: list[Size | Text | None] | None


class _Part(StrictModel):
    file: FileName
    sha256: Sha256
    weights_file: FileName | None
    operators: Size
    inputs: list[_Tensor]
    outputs: list[_Tensor]
    precision: Literal["fp32", "fp16", "int8"] = "fp32"  # splits written before there were others have none


class ManifestSchema(StrictModel):
    """A `pepper.graph.manifest.Manifest`."""

    source: Text
    source_sha256: Sha256
    inputs: list[_Tensor]
    outputs: list[_Tensor]
    shapes: dict[Text, list[Size]]
    cuts: list[list[Text]]
    parts: Annotated[list[_Part], Field(min_length=1)]
    proof: Text | None = None  # splits written before it was kept have none
