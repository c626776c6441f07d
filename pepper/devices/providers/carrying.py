"""Providers that may compute in a memory of their own: how inputs get there, and outputs back."""

from functools import partial

import onnxruntime as ort

from pepper.devices.protocol import Arrays
from pepper.devices.providers.binding import CarriedInference, has_own_memory
from pepper.devices.providers.cpu import CpuProvider
from pepper.devices.providers.provider import Run, Serving


class CarryingProvider(CpuProvider):
    """Inputs and outputs have a place in the memory of what computes, made once; each inference brings its own there.

    Where that memory is the host's, there is nothing to bring.
    """

    def bind(self, session: ort.InferenceSession, inputs: Arrays) -> Run:
        """Return what runs the model on these inputs."""
        return partial(self.serving(session), inputs)

    def serving(self, session: ort.InferenceSession) -> Serving:
        """Return what runs the model on one request after another."""
        return CarriedInference(session) if has_own_memory(session) else partial(session.run, None)
