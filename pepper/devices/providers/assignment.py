"""Which operators a provider really runs: onnxruntime moves to the CPU what it has no kernel for, and does not say."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import onnxruntime as ort

RECORD = "session.record_ep_graph_assignment_info"
"""onnxruntime's switch: keep, while a session opens, which provider takes which operator."""


@dataclass(frozen=True)
class Assignment:
    """How a model's operators, as they were left by onnxruntime's general optimisations, are spread.

    Attributes:
        operators: How many there are; None where this onnxruntime does not tell.
        elsewhere: Those that another provider runs, as ``TYPE NAME``.
    """

    operators: int | None
    elsewhere: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it with its words."""
        return {"operators": self.operators, "elsewhere": list(self.elsewhere), "said": self.said()}

    def said(self) -> str:
        """Return in a few words what runs elsewhere, by kind; empty if nothing does."""
        kinds = Counter(each.split(" ")[0] for each in self.elsewhere)
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        return f"{len(self.elsewhere)} of {self.operators} operators run on the CPU: {listed}" if kinds else ""


def taken_by(name: str, session: ort.InferenceSession) -> Assignment:
    """Return what a provider runs of an open session's model.

    Args:
        name: onnxruntime's name of the provider.
        session: One that was opened with `RECORD` set.

    Raises:
        RuntimeError: It runs nothing of it.
    """
    providers = session.get_providers()
    if name not in providers:
        raise RuntimeError(f"{name} did not take the model: onnxruntime would run it on {providers[0]}")
    if not hasattr(session, "get_provider_graph_assignment_info"):  # onnxruntime before 1.24
        return Assignment(None)
    own, elsewhere = 0, []
    for part in session.get_provider_graph_assignment_info():
        nodes = part.get_nodes()
        if part.ep_name == name:
            own += len(nodes)
        else:
            elsewhere += [f"{node.op_type} {node.name}".rstrip() for node in nodes]
    if elsewhere and not own:
        kinds = ", ".join(sorted({each.split(" ")[0] for each in elsewhere})[:5])
        raise RuntimeError(f"{name} took no operator of the model: all {len(elsewhere)} would run on the CPU ({kinds})")
    return Assignment(own + len(elsewhere), tuple(elsewhere))
