"""Timelines: no bar hides another one, and any name is drawn as it is."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pepper.report.timeline_figures import timelines
from pepper.report.timelines import Busy, lanes, side_by_side

ODD = ("a $x_{$ <script>", "$\\nothing$ & #1", "-> \"b\" 'c'")


def busy(device: str, request: int, start_ms: float, stop_ms: float, sender: str | None = None) -> Busy:
    lane = device if sender is None else f"{sender} -> {device}"
    return Busy(lane, device, request, "work", start_ms, stop_ms)


def test_lanes_follow_a_whole_request() -> None:
    stream = [busy("b", 1, 0, 1), busy("a", 2, 1, 2), busy("b", 2, 2, 3, "a"), busy("b", 2, 3, 4)]
    assert lanes(stream) == ["a", "a -> b", "b"]
    assert lanes([busy("c", 1, 0, 1)], stream) == ["c", "a", "a -> b", "b"]
    assert lanes() == []


def test_what_overlaps_lies_side_by_side() -> None:
    assert side_by_side([busy("a", 2, 5, 15), busy("a", 1, 0, 10), busy("b", 1, 0, 9)]) == [(1, 2), (0, 2), (0, 1)]
    assert side_by_side([busy("a", 1, 0, 100), busy("a", 2, 98, 200)]) == [(0, 1), (0, 1)], "they hardly touch"


spans = st.tuples(st.floats(0, 100), st.floats(0.1, 50)).map(lambda span: (span[0], span[0] + span[1]))


@given(st.lists(spans, min_size=1, max_size=12))
def test_no_bar_hides_another_one(given: list[tuple[float, float]]) -> None:
    placed = side_by_side([busy("a", number, *span) for number, span in enumerate(given)])
    assert {of for _, of in placed} == {1 + max(track for track, _ in placed)}
    for one, (track, _) in zip(given, placed, strict=True):
        for other, (beside, _) in zip(given, placed, strict=True):
            if one is not other and track == beside and one[0] <= other[0]:
                assert one[1] - other[0] <= 0.1 * min(one[1] - one[0], other[1] - other[0]) + 1e-9


def test_any_name_is_drawn_in_both_formats(tmp_path: Path) -> None:
    first, second, third = ODD
    events = [busy(first, 1, 0, 5), busy(second, 1, 5, 7, first), busy(second, 2, 7, 9), busy(third, 3, 0, 1e-9)]
    timelines({"one": events[:2], "the same": events[:3], first: events}, tmp_path / "timeline")
    assert (tmp_path / "timeline.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "timeline.svg").read_text()
