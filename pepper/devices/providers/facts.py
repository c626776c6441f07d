"""What a provider and its hardware are on this machine: what must be alike for two measurements to be of one device."""

import re
from pathlib import Path

import onnxruntime as ort

from pepper.devices.providers.choice import Choice
from pepper.devices.providers.given import unnamed
from pepper.devices.providers.plugin import chosen_device, library_file

NVIDIA = Path("/proc/driver/nvidia")
_NVIDIA_ID = 0x10DE
_NVIDIA_PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")


def facts(choice: Choice, nvidia: Path = NVIDIA) -> dict[str, str]:
    """Return what is found out about a chosen provider, as text by name; nothing that changes from run to run.

    ``hardware`` is what it computes on, ``provider_version`` the plug-in's, ``driver`` the accelerator's,
    ``options_unknown`` those chosen that the plug-in has not; the others are the plug-in's own words.

    Args:
        choice: The provider.
        nvidia: Where NVIDIA's kernel module describes itself and its devices.

    Raises:
        ValueError: It is not there.
    """
    found: dict[str, str] = {}
    if choice.library is not None:
        device = chosen_device(choice)
        hardware = device.device
        found = {name: value for name, value in device.ep_metadata.items() if name != "library_path"}
        found |= {f"hardware_{name}": value for name, value in hardware.metadata.items()}
        found["provider_version"] = found.pop("version", "unknown")
        kind = hardware.type.name.lower()
        library = library_file(choice.library)
        found["library"] = library.name
        if unknown := unnamed(library, choice.options):
            found["options_unknown"] = " ".join(unknown)
        found["hardware"] = f"{hardware.vendor} {kind} {hardware.vendor_id:04x}:{hardware.device_id:04x}"
        found["kind"] = kind
        if hardware.vendor_id != _NVIDIA_ID:
            return found
    elif choice.name not in ort.get_available_providers():
        raise ValueError(f"this onnxruntime has no {choice.name}")
    if choice.name in _NVIDIA_PROVIDERS or choice.library is not None:
        found |= of_nvidia(nvidia, int(choice.options.get("device_id", 0)))
    return found


def of_nvidia(folder: Path, number: int) -> dict[str, str]:
    """Return the model, the identifier and the driver of a GPU, as far as the kernel module tells."""
    found = {}
    version = folder / "version"
    if version.is_file() and (driver := re.search(r"Kernel Module\D+([\d.]+)", version.read_text())):
        found["driver"] = driver[1]
    gpus = sorted(folder.glob("gpus/*/information"))
    if number < len(gpus):
        said = dict(re.findall(r"^([^:]+):\s*(.+?)\s*$", gpus[number].read_text(), re.MULTILINE))
        found["hardware"] = said.get("Model", "unknown")
        found["uuid"] = said.get("GPU UUID", gpus[number].parent.name)
    return found
