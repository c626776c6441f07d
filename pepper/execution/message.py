"""What travels from stage to stage: numbers, words, then the bytes of each tensor as they lie in memory.

Nothing is pickled and no tensor is copied here: sending hands the array's memory to the queue, receiving looks at the
memory that the queue filled.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from pepper.devices.protocol import Described, GarbledError, described, shaped

Array = np.ndarray[Any, Any]

_TIMES = 5  # numbers of a stamp: four times, and the stage
_MOST_WORDS_BYTES = 2**20  # names, types and shapes of some thousand tensors


class Stamp(NamedTuple):
    """When a request passed through one stage; ns of a host's monotonic clock.

    Attributes:
        arrived: It was there: received, and its link's time was over.
        start: The inference began.
        end: The inference ended.
        sent: The results were handed on, after waiting for room in the next queue.
        host: Whose clock that is; empty for the driver's own.
        stage: The stage's number, from 1; 0 for the driver's.
    """

    arrived: int
    start: int
    end: int
    sent: int
    host: str = ""
    stage: int = 0

    def by_clock_behind(self, ahead_ns: int) -> "Stamp":
        """Return it by a clock that its host's is ahead of, by this much."""
        return self._replace(**{name: getattr(self, name) - ahead_ns for name in self._fields[:4]})


@dataclass(slots=True)
class Message:
    """A request on its way; each stage that it passes changes it.

    Attributes:
        seq: The request's number.
        tensors: What travels, by name.
        stamps: One of the driver, then one for each stage that it has passed, in order.
        due_ns: When its link delivers it: at once, when it was sent, where there is none; 0 where it comes from another
            host: when it is there.
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


def join(messages: Sequence[Message]) -> Message:
    """Return what several stages say of one request as one message, there when the last of them is.

    Raises:
        GarbledError: They are of different requests.
    """
    first, *others = messages
    if not others:
        return first
    if any(other.seq != first.seq for other in others):
        raise GarbledError(f"requests {', '.join(str(message.seq) for message in messages)} come together")
    stamps = {stamp.stage: stamp for message in messages for stamp in message.stamps}
    error = next((message.error for message in messages if message.error is not None), None)
    return Message(
        first.seq,
        {} if error is not None else {name: value for m in messages for name, value in m.tensors.items()},
        tuple(stamps[stage] for stage in sorted(stamps)),
        max(message.due_ns for message in messages),
        error,
        first.probe,
    )


def newest(heads: Mapping[int, Message]) -> dict[int, Message]:
    """Return those of several ways' next messages that are of the newest request: the others' requests are lost."""
    latest = max(message.seq for message in heads.values())
    return {way: message for way, message in heads.items() if message.seq == latest}


def plain(name: str, tensor: Any) -> Array:
    """Return the tensor in one piece of memory.

    Raises:
        TypeError: It has no plain bytes.
    """
    if not isinstance(tensor, np.ndarray) or tensor.dtype.hasobject:
        raise TypeError(f"tensor {name!r} holds no plain numbers, so it cannot be sent from stage to stage")
    return np.asarray(tensor, order="C")


def encode(message: Message) -> list[Any]:
    """Return the pieces of a message; its arrays, each in one piece of memory, are not copied."""
    tensors = tuple((name, tensor.dtype, tensor.shape) for name, tensor in message.tensors.items())
    times = chain.from_iterable((*stamp[:4], stamp.stage) for stamp in message.stamps)
    numbers = (message.seq, message.due_ns, message.probe, *times)
    flat = (tensor.reshape(-1).view(np.uint8) for tensor in message.tensors.values())
    said = _said(message.error, tensors, tuple(stamp.host for stamp in message.stamps))
    return [struct.pack(f"={len(numbers)}q", *numbers), said, *flat]


def decode(pieces: Sequence[memoryview]) -> Message:
    """Return the message of these pieces; its arrays are views of them.

    Raises:
        GarbledError: They are no message.
    """
    if len(pieces) < 2 or len(pieces[0]) % 8 or len(pieces[1]) > _MOST_WORDS_BYTES:
        raise GarbledError(f"{len(pieces)} pieces: no message")
    numbers = pieces[0].cast("q").tolist()
    if len(numbers) % _TIMES != 3 or numbers[2] not in (0, 1):
        raise GarbledError(f"{len(numbers)} numbers: no message")
    seq, due_ns, probe, *times = numbers
    error, named, hosts = _heard(bytes(pieces[1]))
    if len(named) != len(pieces) - 2:
        raise GarbledError(f"{len(pieces) - 2} tensors, {len(named)} announced")
    tensors = {}
    for (name, dtype, shape), piece in zip(named, pieces[2:], strict=True):
        tensor = shaped(name, dtype, shape, piece)
        tensors[name] = tensor if tensor.flags.aligned else tensor.copy()  # tiny messages may lie anywhere
    if _TIMES * len(hosts) != len(times):
        raise GarbledError(f"{len(times)} times of {len(hosts)} hosts")
    spans = zip(*[iter(times)] * _TIMES, strict=True)
    stamps = tuple(Stamp(a, b, c, d, host, stage) for (a, b, c, d, stage), host in zip(spans, hosts, strict=True))
    return Message(seq, tensors, stamps, due_ns, error, bool(probe))


# What stays the same from message to message is put in words and understood once.
@lru_cache
def _said(error: str | None, tensors: tuple[Any, ...], hosts: tuple[str, ...]) -> bytes:
    return json.dumps((error, [(name, dtype.str, shape) for name, dtype, shape in tensors], hosts)).encode()


@lru_cache
def _heard(said: bytes) -> tuple[str | None, Described, tuple[str, ...]]:
    try:
        error, tensors, hosts = json.loads(said)
    except (ValueError, RecursionError, TypeError) as mistake:
        raise GarbledError(f"no message: {mistake}") from mistake
    if error is not None and not isinstance(error, str):
        raise GarbledError("no message: an error without words")
    if not (isinstance(hosts, list) and all(isinstance(host, str) for host in hosts)):
        raise GarbledError("no message: stamps of no hosts")
    return error, described(tensors), tuple(hosts)
