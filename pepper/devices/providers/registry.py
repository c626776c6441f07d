"""Providers by onnxruntime's name of them."""

import ctypes
from pathlib import Path

import onnxruntime as ort

from pepper import additions
from pepper.devices.providers.carrying import CarryingProvider
from pepper.devices.providers.choice import Choice
from pepper.devices.providers.cpu import CpuProvider
from pepper.devices.providers.known import KNOWN, graph_option, how_to_install
from pepper.devices.providers.plugin import PluginProvider
from pepper.devices.providers.provider import Provider


class BuiltInProvider(CarryingProvider):
    """A provider that this build of onnxruntime has, and that nothing more is known of.

    It takes arrays in the host's memory and gives such; what it is probed for is the cores that feed it.
    """

    def __init__(self, choice: Choice) -> None:
        self.name = choice.name
        self.graph_option = graph_option(choice.name)
        super().__init__(choice)

    def open(self, path: str, options: ort.SessionOptions) -> ort.InferenceSession:
        """Open a model on this provider, if onnxruntime has it.

        Raises:
            ValueError: It has not.
        """
        available = ort.get_available_providers()
        if self.name not in available:
            known = ", ".join([*available, *additions.names(additions.PROVIDERS)])
            raise ValueError(f"this onnxruntime has {known}, not {self.name}; {how_to_install(self.name)}")
        if self.name.startswith(("CUDA", "Tensorrt")):
            ort.preload_dlls()  # those of NVIDIA's packages, which no search path leads to
        chosen = [(self.name, dict(self.choice.options))]
        # Without this onnxruntime opens the model on the CPU, if the provider fails, and prints a line.
        return ort.InferenceSession(path, options, providers=chosen, enable_fallback=0)

    def missing(self) -> str:
        """Return which library the provider's own one does not find."""
        stem = self.name.removesuffix("ExecutionProvider").lower()
        library = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{stem}.so"
        if not library.is_file():
            return ""
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            if "cannot open shared object file" in str(error):
                known = KNOWN.get(self.name)
                return f"{error}{f'; {known.needs}' if known and known.needs else ''}"
        return ""


def provider_named(name: str, library: str | None = None, **settings: object) -> Provider:
    """Return the provider of this name: pepper's own, one that an installed package adds, of a plug-in library, or one
    of onnxruntime's.

    Args:
        name: onnxruntime's name of it.
        library: Where a plug-in is.
        **settings: The rest of :class:`Choice`.

    Raises:
        ConfigError: What was added cannot be imported, or is no `Provider`.
    """
    choice = Choice(name, library, **settings)  # type: ignore[arg-type]
    if library is not None:
        return PluginProvider(choice)
    if name == CpuProvider.name:
        return CpuProvider(choice)
    if name in additions.names(additions.PROVIDERS):
        added: Provider = additions.load_class(additions.PROVIDERS, name, Provider)(choice)
        return added
    return BuiltInProvider(choice)
