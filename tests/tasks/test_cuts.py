"""``task=cuts`` from the command line."""

from pathlib import Path
from typing import Any

from tests.graph import models


def test_cuts_are_listed_and_explained(desk: Any, tmp_path: Path) -> None:
    file = models.save(models.unet(), tmp_path / "u.onnx")
    base = ("task=cuts", "model=onnx", f"model.path={file}")
    listed = desk(*base)
    assert listed.status == 0, listed.err
    assert "20 operators, 7 cuts (tensors)" in listed.out
    assert "19 cuts (frontiers)" in desk(*base, "cuts=frontiers").out
    assert "tensors cross behind" in desk(*base, "cuts.why=conv_3_0").out
