"""What the programs of a standing pipeline are told: a file each, and the pipeline's keys in their environment."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from pepper.documents import MOST_BYTES, first_fault, plain_name, read_bytes
from pepper.errors import ExecutionError
from pepper.execution.queues import Keys
from pepper.strict import StrictModel

PUBLIC, SECRET = "PEPPER_PUBLIC_KEY", "PEPPER_SECRET_KEY"
"""Environment variables that hold the keys, in hexadecimal."""

Count = Annotated[int, Field(ge=1)]
Queue = Annotated[int, Field(ge=1, le=1024)]
Seconds = Annotated[float, Field(gt=0)]
Place = Annotated[str, Field(pattern=r"^[^:/\s]+:\d{1,5}$")]
"""``ADDRESS:PORT``."""


class OutletFile(StrictModel):
    """A way out.

    Attributes:
        address: ``ADDRESS:PORT`` where whoever receives listens.
        carry: Names of the tensors that go there.
    """

    address: Place
    carry: list[str]


class StageFile(StrictModel):
    """A stage of a standing pipeline.

    Attributes:
        format: Of this file.
        number: The stage's number, from 1.
        name: How errors call it.
        files: SHA-256 (hex) of the part, which comes first, and of its external weights, by the file's name beside
            this one, in ``parts/``.
        provider: As of :class:`pepper.devices.providers.choice.Choice`.
        threads: onnxruntime's intra-operator threads.
        session: As of :class:`pepper.config.SessionConfig`.
        receive: Where the stage listens, once for each that sends to it.
        send: To whom it hands what it gives.
        queue: Most messages between two stages.
        health: Where it answers whether it works.
    """

    format: Literal[1]
    number: Count
    name: str
    files: Annotated[dict[str, str], Field(min_length=1)]
    provider: dict[str, Any]
    threads: Count
    session: dict[str, Any]
    receive: Annotated[list[Place], Field(min_length=1)]
    send: Annotated[list[OutletFile], Field(min_length=1)]
    queue: Queue
    health: Place


class TensorFile(StrictModel):
    """An input or an output of the model.

    Attributes:
        name: Its name.
        dtype: numpy's name of its type.
        shape: Its dimensions, None where any will do; None is any shape.
    """

    name: str
    dtype: str
    shape: list[int | None] | None


class PredictedStage(StrictModel):
    """What a plan predicts of a stage.

    Attributes:
        number: The stage's number, from 1.
        device: Its device.
        time_s: Mean time of the inference.
    """

    number: Count
    device: str
    time_s: Annotated[float, Field(ge=0)]


class GatewayFile(StrictModel):
    """The gateway of a standing pipeline.

    Attributes:
        format: Of this file.
        model: The model's name in addresses.
        inputs: What a request brings.
        outputs: What an answer brings.
        send: To whom the gateway hands requests.
        receive: Where it takes what the answer is made of.
        queue: Most messages between two stages.
        in_flight: Most requests at a time; beyond, they are refused.
        time_limit_s: Longest time that a request may take.
        listen: Where it takes requests over HTTP.
        latency_s: Predicted mean time of a request.
        stages: What is predicted of the stages.
    """

    format: Literal[1]
    model: str
    inputs: list[TensorFile]
    outputs: list[TensorFile]
    send: Annotated[list[OutletFile], Field(min_length=1)]
    receive: Annotated[list[Place], Field(min_length=1)]
    queue: Queue
    in_flight: Count
    time_limit_s: Seconds
    listen: Annotated[str, Field(pattern=r"^[^/\s]+:\d{1,5}$")]
    latency_s: Annotated[float, Field(ge=0)]
    stages: list[PredictedStage]


Told = TypeVar("Told", StageFile, GatewayFile)


def read_told(kind: type[Told], arguments: list[str]) -> tuple[Told, Path]:
    """Read the file that a program was started with; returns its folder, too.

    Raises:
        ExecutionError: There is none, or it is no such file.
    """
    if len(arguments) != 1:
        raise ExecutionError(f"{len(arguments)} arguments; give the one file that task=export wrote for this program")
    file = Path(arguments[0])
    try:
        told = kind.model_validate_json(read_bytes(file, MOST_BYTES))
        if isinstance(told, StageFile):
            for name in told.files:
                plain_name(name)
    except OSError as error:
        raise ExecutionError(f"{file}: cannot be read ({error.strerror}); export the plan again") from error
    except ValueError as error:
        said = first_fault(error) if isinstance(error, ValidationError) else error
        raise ExecutionError(f"{file}: {said}; export the plan again") from error
    return told, file.parent


def environment_of(keys: Keys) -> dict[str, str]:
    """Return the environment of those who hold these keys."""
    from zmq.utils import z85

    return {PUBLIC: z85.decode(keys.public).hex(), SECRET: z85.decode(keys.secret).hex()}


def keys_of(environment: Mapping[str, str] = os.environ) -> Keys:
    """Return the keys that the environment holds.

    Raises:
        ExecutionError: It holds none.
    """
    from zmq.utils import z85

    found = []
    for name in (PUBLIC, SECRET):
        try:
            found.append(z85.encode(bytes.fromhex(environment[name])).decode())
        except (KeyError, ValueError) as error:
            raise ExecutionError(
                f"{name}: {'is not set' if name not in environment else 'is no key'}; give this program the variables"
                " of keys.env that task=export wrote"
            ) from error
        if len(found[-1]) != 40:
            raise ExecutionError(f"{name}: is no key; give this program the variables of keys.env")
    return Keys(*found)


def ended(error: ExecutionError) -> int:
    """Say why a program cannot work; returns its exit status."""
    print(f"error: {error}", file=sys.stderr)
    return 2
