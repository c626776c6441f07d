"""The picture of a chain of cuts."""

from pathlib import Path

import pytest

from pepper.report.graph_figure import CutMark, cut_chain

PNG = b"\x89PNG"


@pytest.mark.parametrize(
    "cuts",
    [
        [],
        [CutMark(1, 4e6, ["a"]), CutMark(2, 9e6, ["b", "c"], chosen=True), CutMark(3, 1e3, ["d" * 99], True)],
    ],
    ids=["no cuts", "chosen cuts"],
)
@pytest.mark.parametrize("macs", [[0, 1e9, 3e9, 3e9, 4e9], [0, 0, 0, 0, 0]], ids=["MACs", "no MACs"])
def test_draws_any_chain(cuts: list[CutMark], macs: list[float], tmp_path: Path) -> None:
    cut_chain("a model", [0, 4e6, 9e6, 1e3, 0], macs, cuts, tmp_path / "chain")
    assert (tmp_path / "chain.png").read_bytes().startswith(PNG)
    assert "<svg" in (tmp_path / "chain.svg").read_text()
