"""What is compared, and what counts as slower."""

from dataclasses import dataclass

from pepper.config.checks import within


@dataclass
class CompareConfig:
    """Two profiles, or two sweeps.

    Attributes:
        baseline: MLflow run of a profile, or of a sweep.
        candidate: The run that may be faster or slower, of the same kind.
        threshold_percent: How much slower is too slow.
        confidence: Of the intervals, for all cells of a sweep together.
        force: Compare whatever the machines, the onnxruntime versions and the verdicts are.
    """

    baseline: str | None = None
    candidate: str | None = None
    threshold_percent: float = 5.0
    confidence: float = 0.95
    force: bool = False

    def __post_init__(self) -> None:
        within("compare.threshold_percent", self.threshold_percent, 0)
        within("compare.confidence", self.confidence, 0.5, 0.9999)
