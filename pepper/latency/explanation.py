"""What a prediction is made of: the estimate's terms, what sharing adds, and what was learned on top of it."""

from dataclasses import dataclass

import numpy as np

from pepper.latency.features import COLUMN, Values
from pepper.latency.model import LatencyModel
from pepper.latency.roofline import BYTE_TERMS, LOAD_TERMS, MAC_TERMS, TERMS, moved_ms


@dataclass(frozen=True)
class Explanation:
    """A predicted median in parts that add up to it, ms.

    Attributes:
        arithmetic_ms: Multiply-accumulates, and bringing their operands to the registers.
        memory_ms: Bytes read, written and brought into another layout.
        overhead_ms: Launches of operators and the call of the runtime.
        transfer_ms: Inputs and outputs brought to where an accelerator computes, and back.
        waiting_ms: Turns of others on a shared core.
        trees_ms: What the trees add to the estimate, or take away.
        adaptation_ms: What measurements on this device add, or take away.
        p50_ms: Their sum.
    """

    arithmetic_ms: float
    memory_ms: float
    overhead_ms: float
    transfer_ms: float
    waiting_ms: float
    trees_ms: float
    adaptation_ms: float
    p50_ms: float


def explain(model: LatencyModel, row: Values) -> Explanation | None:
    """Explain the prediction for a row of features, shape (1, len(FEATURES)).

    The estimate is a sum; the trees and an adaptation multiply it, so each is given as what the median changes by when
    it comes on top of those before.

    Returns:
        The parts; None where the model's trees correct no estimate.
    """
    if model.roofline is None:
        return None
    terms = dict(zip(TERMS, model.roofline.terms_ms(row)[0].tolist(), strict=True))
    factor = model.roofline.factors[TERMS.index("inference")]
    transfer_ms = float(moved_ms(row)[0, 0] * factor * row[0, COLUMN["device_share"]])
    estimate_ms = float(model.roofline.latency_ms(row)[0])
    trained_ms = float(model.trained_ms(row)[0])
    p50_ms = float(model.p50_ms(row)[0])
    parts = {
        "arithmetic_ms": sum(terms[name] for name in (*MAC_TERMS, *LOAD_TERMS)),
        "memory_ms": sum(terms[name] for name in BYTE_TERMS),
        "overhead_ms": terms["operators"] + terms["inference"] - transfer_ms,
        "transfer_ms": transfer_ms,
    }
    waiting_ms = estimate_ms - float(np.sum(list(parts.values())))
    return Explanation(
        **parts,
        waiting_ms=waiting_ms,
        trees_ms=trained_ms - estimate_ms,
        adaptation_ms=p50_ms - trained_ms,
        p50_ms=p50_ms,
    )
