"""Real plug-in providers that compute on any machine's cores, where they are installed."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from pepper.devices.providers.choice import Choice

SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
"""A Vulkan device in software, which comes with Debian's browser: to WebGPU it is a GPU with memory of its own."""

GGML = Choice("ggml", "onnxruntime_ggml", {"device": "cpu", "weights": "f32"})
WEBGPU = Choice("WebGpuExecutionProvider", "onnxruntime_ep_webgpu")
OPENVINO = Choice(
    "OpenVINOExecutionProvider",
    "onnxruntime_ep_openvino",
    {"load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}'},  # or processors that have it compute in bfloat16
)


def on_software() -> None:
    """Let WebGPU find the device in software, in this process and in those that it starts."""
    os.environ |= {"VK_ICD_FILENAMES": str(SWIFTSHADER), "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "1"}


def needs(choice: Choice) -> Choice:
    """Return a plug-in's choice; skip the test where it is not installed, or finds nothing to compute on."""
    assert choice.library is not None
    if find_spec(choice.library) is None:
        pytest.skip(f"{choice.library} is not installed")
    if choice == WEBGPU:
        if not SWIFTSHADER.is_file():
            pytest.skip("no Vulkan device in software: chromium is not installed")
        on_software()
    if choice == OPENVINO and not _is_intel():
        pytest.skip("OpenVINO's plug-in takes Intel's processors only")
    os.environ.setdefault("ORT_GGML_LOG", "off")
    return choice


def at_hand() -> Choice:
    """Return OpenVINO's choice where its plug-in computes, or else ggml's."""
    return needs(OPENVINO if _is_intel() and find_spec(str(OPENVINO.library)) else GGML)


def _is_intel() -> bool:
    return "GenuineIntel" in Path("/proc/cpuinfo").read_text()


def overrides(choice: Choice) -> list[str]:
    """Return what chooses a provider on the command line."""
    options = [f"device.options.{name}='{value}'" for name, value in choice.options.items()]
    return [f"device.provider={choice.name}", f"device.library={choice.library}", *options]
