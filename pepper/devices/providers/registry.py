"""Providers by onnxruntime's name of them."""

import onnxruntime as ort

from pepper import additions
from pepper.devices.providers.cpu import CpuProvider
from pepper.devices.providers.provider import Provider


class BuiltInProvider(CpuProvider):
    """A provider that this build of onnxruntime has, and that nothing more is known of.

    It takes arrays in the host's memory and gives such; what it is probed for is the cores that feed it.

    Args:
        name: onnxruntime's name of it.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def open(self, path: str, options: ort.SessionOptions) -> ort.InferenceSession:
        """Open a model on this provider, if onnxruntime has it.

        Raises:
            ValueError: It has not.
        """
        available = ort.get_available_providers()
        if self.name not in available:
            known = ", ".join([*available, *additions.names(additions.PROVIDERS)])
            raise ValueError(f"this onnxruntime has {known}, not {self.name}")
        return super().open(path, options)


def provider_named(name: str) -> Provider:
    """Return the provider of this name: pepper's own, one that an installed package adds, or one of onnxruntime's.

    Raises:
        ConfigError: What was added cannot be imported, or is no `Provider`.
    """
    if name == CpuProvider.name:
        return CpuProvider()
    if name in additions.names(additions.PROVIDERS):
        added: Provider = additions.load_class(additions.PROVIDERS, name, Provider)()
        return added
    return BuiltInProvider(name)
