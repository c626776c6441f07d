"""How far the answers of a plan may lie from the model's own."""

from dataclasses import dataclass

from pepper.placement.plan_values import Amount, Text, Whole


@dataclass(frozen=True)
class Accuracy:
    """How far a plan's answers may lie from the model's own, where parts run in other precisions.

    Differences are relative as in `pepper.graph.rounding.difference`, the largest of all outputs and samples.

    Attributes:
        error: What was measured.
        max_error: What is accepted.
        samples: How many samples it was measured on; activations had their ranges in 8 bits on the same ones.
        calibration: The file of these; None where they were drawn.
        sha256: Of that file.
        seed: Of what was drawn.
    """

    error: Amount
    max_error: Amount
    samples: Whole
    calibration: Text | None = None
    sha256: Text | None = None
    seed: Whole = 0
