"""The contract of an execution provider."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pepper.devices.protocol import Arrays
from pepper.devices.providers.choice import Choice

if TYPE_CHECKING:
    import onnxruntime as ort

Run = Callable[[], Sequence[Any]]
"""One inference: returns the model's outputs, complete and in the host's memory, in the order of the model."""

Serving = Callable[[Arrays], Sequence[Any]]
"""The same on the inputs of a request, by name."""


class Provider(ABC):
    """Runs models in onnxruntime through one execution provider.

    It is used inside of the programs on a device: the timed worker, a stage, the calibrator. So its module imports
    nothing but numpy, onnxruntime and what the provider itself needs. Sessions belong to whoever opens them.

    What runs must be what was asked for: a session whose operators all went to the CPU instead is refused (see
    :func:`pepper.devices.providers.opening.open_checked`), whoever opened it.

    Args:
        choice: The settings: options, which accelerator, whether operators may run on the CPU.

    Attributes:
        name: onnxruntime's name of the provider, such as ``CPUExecutionProvider``: what ``device.provider`` says.
        runs_as: The provider under which onnxruntime lists what it runs; the name, unless it stands for another.
        graph_option: Its option that lets it capture an inference and repeat it; None where it has none.
    """

    name: str
    runs_as: str | None = None
    graph_option: str | None = None

    def __init__(self, choice: Choice | None = None) -> None:
        self.choice = choice or Choice(self.name)

    @abstractmethod
    def open(self, path: str, options: "ort.SessionOptions") -> "ort.InferenceSession":
        """Open a model, so that this provider runs it.

        Args:
            path: The model's file.
            options: How the session works (see :func:`pepper.devices.providers.options.session_options`); a provider
                may add to them.

        Raises:
            ValueError: The provider is not there; the message says what is.
            Exception: onnxruntime refuses the model; its own exceptions have no common base.
        """

    @abstractmethod
    def bind(self, session: "ort.InferenceSession", inputs: Arrays) -> Run:
        """Return what runs the model on these inputs, once a call; what can be done once is done here.

        Args:
            session: One that this provider opened.
            inputs: The model's inputs by name; they do not change, and live as long as what is returned.
        """

    def serving(self, session: "ort.InferenceSession") -> Serving:
        """Return what runs the model on one request after another; unless a provider does more, each is bound anew.

        Args:
            session: One that this provider opened.
        """
        return lambda inputs: self.bind(session, inputs)()

    @abstractmethod
    def probe(self, kernel: str, seconds: float) -> float:
        """Return how fast the device is, measured for about so long, with the threads that this process may use.

        Args:
            kernel: ``gflops``, a single-precision matrix product in GFLOP/s (two operations a multiply-add); or
                ``memory_gbps``, a copy beyond all caches in GB/s (each byte is read once and written once).
            seconds: How long.
        """

    def missing(self) -> str:
        """Return which library the provider lacks here, and what brings it; empty if none is known to be missing."""
        return ""
