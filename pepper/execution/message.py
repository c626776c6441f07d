"""What travels from stage to stage: a short header, then the bytes of each tensor as they lie in memory.

Nothing is pickled and no tensor is copied here: sending hands the array's memory to the transport, receiving
looks at the memory that the transport filled.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

Array = np.ndarray[Any, Any]


class Frame(Protocol):
    """A piece of a received message."""

    @property
    def buffer(self) -> memoryview:
        """Its bytes."""


class Stamp(NamedTuple):
    """When a request passed through one stage; ns of the machine's monotonic clock.

    Attributes:
        arrived: It was there: received, and its link's time was over.
        start: The inference began.
        end: The inference ended.
        sent: The results were handed on, after waiting for room in the next queue.
    """

    arrived: int
    start: int
    end: int
    sent: int


@dataclass(slots=True)
class Message:
    """A request on its way; each stage that it passes changes it.

    Attributes:
        seq: The request's number.
        tensors: What travels, by name.
        stamps: One of the driver, then one for each stage that it has passed.
        due_ns: When its link delivers it: at once, when it was sent, where there is none.
        error: Why it failed; then it carries no tensors and passes through.
        probe: Whether it only measures the way: stages pass it on as it is.
    """

    seq: int
    tensors: Mapping[str, Array]
    stamps: tuple[Stamp, ...] = ()
    due_ns: int = 0
    error: str | None = None
    probe: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of its tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def fail(self, reason: str) -> None:
        """Make it a request that failed."""
        self.tensors, self.error = {}, reason


def plain(name: str, tensor: Any) -> Array:
    """Return the tensor in one piece of memory.

    Raises:
        TypeError: It has no plain bytes.
    """
    if not isinstance(tensor, np.ndarray) or tensor.dtype.hasobject:
        raise TypeError(f"tensor {name!r} holds no plain numbers, so it cannot be sent from stage to stage")
    return np.asarray(tensor, order="C")


def encode(message: Message) -> list[Any]:
    """Return the frames of a message; its arrays, each in one piece of memory, are not copied."""
    tensors = [(name, tensor.dtype.str, tensor.shape) for name, tensor in message.tensors.items()]
    header = (message.seq, message.stamps, message.due_ns, message.error, message.probe, tensors)
    flat = (tensor.reshape(-1).view(np.uint8) for tensor in message.tensors.values())
    return [json.dumps(header).encode(), *flat]


def decode(frames: Sequence[Frame]) -> Message:
    """Return the message of these frames; its arrays are read-only views of them."""
    seq, stamps, due_ns, error, probe, named = json.loads(bytes(frames[0].buffer))
    tensors = {}
    for (name, dtype, shape), frame in zip(named, frames[1:], strict=True):
        tensor = np.frombuffer(frame.buffer, dtype).reshape(shape)
        tensors[name] = tensor if tensor.flags.aligned else tensor.copy()  # tiny messages may lie anywhere
    return Message(seq, tensors, tuple(Stamp(*stamp) for stamp in stamps), due_ns, error, probe)
