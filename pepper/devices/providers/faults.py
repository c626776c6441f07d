"""What an accelerator's own errors mean: the reason and the fix, in a line."""

import re
from collections.abc import Callable

import onnxruntime as ort

from pepper.devices.providers.choice import CPU, Choice

_LIMIT = "gpu_mem_limit"


def meaning(error: Exception, choice: Choice) -> str:
    """Return what an error of a provider says to its user; empty where nothing better is known than its own words.

    The words are those of onnxruntime's arena of device memory and of CUDA's runtime (its error codes).
    """
    if choice.name == CPU:
        return ""
    text = " ".join(str(error).split())
    for pattern, told in _KNOWN.items():
        if found := re.search(pattern, text, re.IGNORECASE):
            return f"{choice.name}: {told(found, choice)}"
    return ""


def _missing(found: re.Match[str], choice: Choice) -> str:
    free, wanted = map(int, found.groups())
    return f"too little device memory: {wanted - free} bytes are missing ({wanted} wanted, {free} left){_less(choice)}"


def _refused(found: re.Match[str], choice: Choice) -> str:
    return f"too little device memory: {found[1]} bytes more were wanted than there are{_less(choice)}"


def _full(found: re.Match[str], choice: Choice) -> str:
    return f"too little device memory ({found[0]}){_less(choice)}"


def _less(choice: Choice) -> str:
    limit = choice.options.get(_LIMIT)
    more = f"raise device.options.{_LIMIT}={limit}" if limit else "end what else uses the device"
    return f"; {more}, or give a smaller batch or part of the model (model.part)"


def _no_such(found: re.Match[str], choice: Choice) -> str:
    number = choice.options.get("device_id", "0")
    return (
        f"there is no GPU with the number device.options.device_id={number}; give one that nvidia-smi lists (from 0 on,"
        " of those that CUDA_VISIBLE_DEVICES leaves)"
    )


def _old_driver(found: re.Match[str], choice: Choice) -> str:
    return (
        f"the GPU's driver is older than what onnxruntime {ort.__version__} was built for ({found[0]}); install a newer"
        " driver, or an older onnxruntime-gpu"
    )


def _other_driver(found: re.Match[str], choice: Choice) -> str:
    return (
        f"the GPU's driver and CUDA's libraries are not of one version ({found[0]}); start the machine again after an"
        " update of the driver, and let a container have the host's"
    )


def _new_gpu(found: re.Match[str], choice: Choice) -> str:
    return (
        f"onnxruntime {ort.__version__} holds no code for this GPU ({found[0]}); install an onnxruntime-gpu that names"
        " it among those that it supports"
    )


_KNOWN: dict[str, Callable[[re.Match[str], Choice], str]] = {
    r"Available memory of (\d+) is smaller than requested bytes of (\d+)": _missing,
    r"Failed to allocate memory for requested buffer of size (\d+)": _refused,
    r"CUDA failure 2: out of memory|CU\w+_STATUS_ALLOC_FAILED": _full,
    r"CUDA failure 10[01]: [\w -]*\w|invalid device ordinal": _no_such,
    r"CUDA failure 35: [\w -]*\w|CUDA failure 222: [\w -]*\w": _old_driver,
    r"CUDA failure 80[34]: [\w /-]*\w": _other_driver,
    r"CUDA failure 209: [\w -]*\w": _new_gpu,
}
