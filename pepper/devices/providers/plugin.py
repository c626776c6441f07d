"""Providers that come as plug-in libraries: registered, found by their hardware, chosen for a session."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from pepper.devices.providers.carrying import CarryingProvider
from pepper.devices.providers.choice import Choice
from pepper.devices.providers.known import how_to_install

_KNOWS = ("get_library_path", "library_path")
"""What modules of plug-ins call the function that returns where their library is."""


class PluginProvider(CarryingProvider):
    """A provider of a plug-in library, on one of the hardware devices that it can use."""

    def __init__(self, choice: Choice) -> None:
        self.name = choice.name
        super().__init__(choice)

    def open(self, path: str, options: ort.SessionOptions) -> ort.InferenceSession:
        """Open a model on this provider.

        Raises:
            ValueError: There is no such library, provider, or hardware device.
        """
        if not options.has_providers():  # a second session may be opened with the same ones
            options.add_provider_for_devices([chosen_device(self.choice)], dict(self.choice.options))
        return ort.InferenceSession(path, options, enable_fallback=0)


def library_file(library: str) -> Path:
    """Return the file of a plug-in's library.

    Args:
        library: The file, or the name of the installed Python module that says where it is.

    Raises:
        ValueError: There is neither.
    """
    if "/" in library or library.endswith((".so", ".dll", ".dylib")):
        file = Path(library)
        if not file.is_file():
            raise ValueError(f"device.library={library}: no such file; give the plug-in's library")
        return file.resolve()
    try:
        found = importlib.util.find_spec(library)
    except (ImportError, ValueError):
        found = None
    if found is None:
        package = library.replace("_", "-")
        raise ValueError(f"device.library={library}: no such Python module; pip install {package}, or give a file")
    module = importlib.import_module(library)
    for name in _KNOWS:
        if callable(where := getattr(module, name, None)):
            return Path(where())
    raise ValueError(f"device.library={library}: this module does not say where its library is; give the file")


def devices_of(choice: Choice) -> list["ort.OrtEpDevice"]:
    """Register a plug-in's library, once a process; return what hardware devices its provider can use.

    Raises:
        ValueError: It is no plug-in library, of another onnxruntime, or has no such provider or no hardware.
    """
    assert choice.library is not None
    file = library_file(choice.library)
    before = {device.ep_name for device in ort.get_ep_devices()}
    if choice.name not in before:
        try:
            ort.register_execution_provider_library(choice.name, str(file))
        except Exception as error:  # onnxruntime's own exceptions have no common base
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"device.library={file}: no plug-in that onnxruntime {ort.__version__} can load ({reason});"
                f" {how_to_install(choice.name)}"
            ) from error
    found = [device for device in ort.get_ep_devices() if device.ep_name == choice.name]
    if not found:
        others = {device.ep_name for device in ort.get_ep_devices()} - before
        if others:
            raise ValueError(
                f"device.provider={choice.name}: {file.name} brings {', '.join(sorted(others))}; give that name"
            )
        hardware = ", ".join(sorted({_kind(device) + " of " + device.device.vendor for device in ort.get_ep_devices()}))
        raise ValueError(
            f"{choice.name}: its library finds no hardware that it can use among this machine's ({hardware});"
            " choose another device"
        )
    return found


def chosen_device(choice: Choice) -> "ort.OrtEpDevice":
    """Return the hardware device of a plug-in's provider that was chosen.

    Raises:
        ValueError: There is no such one.
    """
    found = devices_of(choice)
    if choice.accelerator is None:
        return found[0]
    kind, _, number = choice.accelerator.partition(":")
    of_kind = [device for device in found if _kind(device) == kind]
    if int(number or 0) >= len(of_kind):
        raise ValueError(
            f"device.accelerator={choice.accelerator}: {choice.name} can use {', '.join(names_of(found))}; give one"
        )
    return of_kind[int(number or 0)]


def names_of(devices: Sequence["ort.OrtEpDevice"]) -> list[str]:
    """Return what hardware devices are called, such as ``gpu`` and ``gpu:1``."""
    counted: dict[str, int] = {}
    names = []
    for device in devices:
        kind = _kind(device)
        names.append(f"{kind}:{counted[kind]}" if counted.get(kind) else kind)
        counted[kind] = counted.get(kind, 0) + 1
    return names


def _kind(device: "ort.OrtEpDevice") -> str:
    return str(device.device.type.name).lower()
