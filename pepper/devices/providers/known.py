"""What is known of onnxruntime's providers by name: what to install for one, and what it computes on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """A provider that people use.

    Attributes:
        install: What brings it.
        needs: What brings the libraries that it needs besides, where these are missing.
        module: The Python module of its plug-in.
        graph_option: Its option that lets it capture an inference and repeat it; None where it has none.
        on_cores: Whether it may compute on the host's cores, so that a share of their time holds it too.
    """

    install: str
    needs: str = ""
    graph_option: str | None = None
    on_cores: bool = False
    module: str | None = None


KNOWN = {
    "OpenVINOExecutionProvider": Known(
        "pip install 'pepper-harness[openvino]', and choose device=openvino",
        on_cores=True,
        module="onnxruntime_ep_openvino",
    ),
    "WebGpuExecutionProvider": Known(
        "pip install 'pepper-harness[webgpu]', and choose device=webgpu", module="onnxruntime_ep_webgpu"
    ),
    "CUDAExecutionProvider": Known(
        "pip uninstall onnxruntime, then pip install 'pepper-harness[cuda]'",
        "pip install 'onnxruntime-gpu[cuda,cudnn]'",
        "enable_cuda_graph",
    ),
    "TensorrtExecutionProvider": Known(
        "pip uninstall onnxruntime, then pip install 'pepper-harness[cuda]' tensorrt",
        "pip install 'onnxruntime-gpu[cuda,cudnn]' tensorrt",
        "trt_cuda_graph_enable",
    ),
    "DmlExecutionProvider": Known("pip uninstall onnxruntime, then pip install onnxruntime-directml"),
    "QNNExecutionProvider": Known("pip install onnxruntime-qnn"),
    "MIGraphXExecutionProvider": Known("pip uninstall onnxruntime, then pip install onnxruntime-migraphx"),
    "ROCMExecutionProvider": Known("pip uninstall onnxruntime, then pip install onnxruntime-rocm"),
}
"""By onnxruntime's name; all others are taken to compute on cores."""


def computes_on_cores(name: str) -> bool:
    """Return whether a share of the cores' time may hold what runs on a provider."""
    return name not in KNOWN or KNOWN[name].on_cores


def graph_option(name: str) -> str | None:
    """Return the option that lets a provider capture an inference; None where it has none."""
    return KNOWN[name].graph_option if name in KNOWN else None


def how_to_install(name: str) -> str:
    """Return what brings a provider."""
    known = KNOWN.get(name)
    return known.install if known else "install the onnxruntime that has it, or give its plug-in as device.library"
