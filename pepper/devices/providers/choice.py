"""Which execution provider is to run a model, and how: what a device says of it, and its programs are told."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

CPU = "CPUExecutionProvider"
REFUSE = "refuse"


@dataclass(frozen=True)
class Choice:
    """A provider and its settings.

    Attributes:
        name: onnxruntime's name of it.
        library: The file of the plug-in library that brings it, or the Python module that knows it; None where this
            onnxruntime has it.
        options: The provider's own options.
        accelerator: Which of the hardware devices that it can use: ``cpu``, ``gpu`` or ``npu``, with a number where
            there are several, such as ``gpu:1``; None is the first.
        fallback: ``allow``, or ``refuse``: no operator may run on the CPU instead.
    """

    name: str = CPU
    library: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    accelerator: str | None = None
    fallback: str = "allow"

    def to_json(self) -> dict[str, Any]:
        """Return it as the arguments that make it again."""
        return asdict(self)
