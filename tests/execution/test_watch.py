"""The rule by which a pipeline moves: a margin, and patience."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from pepper.execution.watch import Watch


@dataclass(frozen=True)
class Seen:
    at_s: float
    current_ms: float
    best_ms: float


@st.composite
def histories(draw: st.DrawFn) -> list[Seen]:
    """Readings in the order of time; the best plan is never worse than the one at work."""
    at_s, found = 0.0, []
    for gap_s, current_ms, part in draw(
        st.lists(st.tuples(st.floats(0.01, 2), st.floats(0.1, 100), st.floats(0, 1)), max_size=40)
    ):
        at_s += gap_s
        found.append(Seen(at_s, current_ms, current_ms * part))
    return found


margins, patiences = st.floats(0, 0.9), st.floats(0, 5)


@given(histories(), margins, patiences)
def test_a_move_has_been_better_by_the_margin_all_the_while(
    history: list[Seen], margin: float, patience_s: float
) -> None:
    watch, last_move_s = Watch(margin, patience_s), -1.0
    for number, seen in enumerate(history):
        since_s = watch.note(seen.at_s, seen.current_ms, seen.best_ms)
        if since_s is None:
            continue
        assert seen.at_s - since_s >= patience_s
        assert since_s > last_move_s, "patience begins anew"
        meanwhile = [each for each in history[: number + 1] if each.at_s >= since_s]
        assert all(each.best_ms < (1 - margin) * each.current_ms for each in meanwhile)
        last_move_s = seen.at_s


@given(histories(), margins, patiences)
def test_what_stays_better_is_moved_to_as_soon_as_patience_ends(
    history: list[Seen], margin: float, patience_s: float
) -> None:
    watch = Watch(margin, patience_s)
    begun_s = None
    for seen in history:
        better = seen.best_ms < (1 - margin) * seen.current_ms
        begun_s = (seen.at_s if begun_s is None else begun_s) if better else None
        moved = watch.note(seen.at_s, seen.current_ms, seen.best_ms)
        due = begun_s is not None and seen.at_s - begun_s >= patience_s
        assert moved == (begun_s if due else None)
        if due:
            begun_s = None


@given(st.floats(0.05, 0.9), st.floats(0.1, 5), st.integers(2, 60))
def test_a_load_that_comes_and_goes_moves_nothing(margin: float, patience_s: float, readings: int) -> None:
    watch = Watch(margin, patience_s)
    for number in range(readings):
        best_ms = 10.0 if number % 2 else 0.1
        assert watch.note(number * patience_s * 0.9, 10.0, best_ms) is None
