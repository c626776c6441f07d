"""Whether what computes is there, once: onnxruntime, XGBoost, and the execution providers."""

from collections.abc import Iterator

from pepper.devices import runtimes
from pepper.devices.checkup import FAIL, OK, WARN, Finding
from pepper.errors import MeasureError
from pepper.packages import ONNXRUNTIME, XGBOOST, installed, onnxruntime


def runtime_checkup() -> list[Finding]:
    """Look at the packages that come under several names, and run a small model on each execution provider."""
    return [*_variants(), *(_providers() if onnxruntime() else ())]


def _variants() -> Iterator[Finding]:
    """Look at what comes in packages of several names, which hold the same module."""
    runtime = onnxruntime()
    several = installed(ONNXRUNTIME)
    if runtime is None:
        yield Finding(FAIL, "onnxruntime", "absent", "pip install 'pepper-harness[cpu]', or [cuda]")
    elif len(several) > 1:
        found = f"{', '.join(map(str, several))} overwrite each other; what runs is {runtime}"
        names = " ".join(each.name for each in several)
        yield Finding(WARN, "onnxruntime", found, f"pip uninstall {names}, then install the one that you want")
    else:
        yield Finding(OK, "onnxruntime", str(runtime))
    if trees := installed(XGBOOST):
        yield Finding(OK, "xgboost", ", ".join(map(str, trees)))
    else:
        yield Finding(FAIL, "xgboost", "absent", "pip install xgboost, or xgboost-cpu: smaller, without GPUs")


def _providers() -> Iterator[Finding]:
    """Run a small model on each execution provider, each in a process of its own."""
    try:
        choices = runtimes.choices()
    except MeasureError as error:
        yield Finding(FAIL, "providers", str(error), "install onnxruntime anew")
        return
    for choice in choices:
        try:
            took_ms = runtimes.first_run_ms(choice)
        except MeasureError as error:
            reason, _, fix = str(error).partition("; ")
            yield Finding(WARN, "provider", f"{choice.name} runs no model: {reason}", fix or "choose another device")
        else:
            yield Finding(OK, "provider", f"{choice.name} opened and ran a small model in {took_ms:.0f} ms")
