"""What waits on disk is logged, and what cannot be is said in one line."""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pepper.tracking import posting
from pepper.tracking.outbox import SetAside
from pepper.tracking.posting import Posted
from pepper.tracking.store import Store

_MOST_NAMED = 3


def flush(
    store: Store, kept_for: str | None = None, track: Callable[[Sequence[Path]], Iterable[Path]] = iter
) -> Posted:
    """Log what waits for a store, as `pepper.tracking.posting.flush` does, and say what was set aside."""
    posted = posting.flush(store, kept_for, track)
    warn(posted.set_aside)
    return posted


def flush_before(store: Store, track: Callable[[Sequence[Path]], Iterable[Path]] = iter) -> None:
    """Log what waits for a store before more is made for it.

    Raises:
        TrackingError: The store does not answer.
    """
    posted = flush(store, track=track)
    if posted.failure is not None:
        raise posted.failure


def warn(found: Sequence[SetAside]) -> None:
    """Say in a line what was set aside, if anything was."""
    if not found:
        return
    named = "; ".join(f"{each.name}: {each.reason}, now in {each.folder}" for each in found[:_MOST_NAMED])
    more = f"; and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    count = "a waiting result" if len(found) == 1 else f"{len(found)} waiting results"
    what = f"{count} cannot be logged and no longer waits ({named}{more})"
    print(f"warning: {what}; mend it and move it back, or remove it", file=sys.stderr)
