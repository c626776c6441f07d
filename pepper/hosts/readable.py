"""Whether the onnxruntime of a host reads a model, told by what the model is written in: nothing is sent for that."""

from collections.abc import Mapping, Sequence

from pepper.devices import runtimes
from pepper.packages import onnxruntime


def unreadable(ir_version: int, opsets: Mapping[str, int], operators: Sequence[str]) -> str | None:
    """Return why onnxruntime here does not read a model, with the fix; None if it may.

    Operators of domains that it does not know at all are left to it: libraries may bring them.

    Args:
        ir_version: The model's.
        opsets: Versions of its operator sets, by domain.
        operators: What it uses of them, as ``DOMAIN:NAME``.

    Raises:
        MeasureError: onnxruntime cannot be imported.
    """
    package = onnxruntime()
    if package is None:
        return "has no onnxruntime; pip install onnxruntime there, and start task=join again"
    reads = runtimes.reads()
    newer = f"pip install --upgrade {package.name} there and start task=join again, or export the model at that version"
    if ir_version > (most := reads.get("ir_version", ir_version)):
        return f"{package} reads models of IR version {most} and below, this one has {ir_version}; {newer}"
    for domain, version in opsets.items():
        if version > (most := reads["opsets"].get(domain, version)):
            return f"{package} reads opset {most} and below of {_called(domain)}, the model has {version}; {newer}"
    known = {*reads.get("operators", ())}
    domains = {operator.partition(":")[0] for operator in known}
    for operator in operators:
        domain, _, name = operator.partition(":")
        if domain in domains and operator not in known:
            return (
                f"{package} has no operator {name} of {_called(domain)}; pip install --upgrade {package.name} there"
                " and start task=join again, or measure on another host"
            )
    return None


def _called(domain: str) -> str:
    return domain or "ai.onnx"
