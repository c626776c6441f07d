"""How every run of pepper's begins: its kind, its owner, and a name that every store takes."""

import time
from collections.abc import Mapping

import pepper
from pepper.tracking.abandoned import OWNER_TAG, owner
from pepper.tracking.store import Store, reaching
from pepper.tracking.user import user

MOST_NAME = 250
"""Characters that databases keep of a run's name."""
MOST_TAG = 5000
"""Characters of a tag's value."""


def start_run(store: Store, kind: str, name: str, tags: Mapping[str, object], started_ms: int | None = None) -> str:
    """Start a run and return its identifier.

    Args:
        store: The store.
        kind: What it is a run of; the tag ``pepper.kind``.
        name: Its name. One that is too long is shortened in its middle; the tag ``pepper.name`` has it whole.
        tags: More tags; those that are None are left out.
        started_ms: When it began, UNIX time; None is now.

    Raises:
        TrackingError: The store does not answer.
    """
    shown = shortened(name)
    whole = {} if shown == name else {"pepper.name": name}
    given = {key: str(value) for key, value in {**whole, **tags}.items() if value is not None}
    always = {
        "pepper.kind": kind,
        "pepper.version": pepper.__version__,
        OWNER_TAG: owner(),
        "mlflow.user": user(),
        "mlflow.source.name": "pepper.run",
        "mlflow.source.type": "LOCAL",
    }
    with reaching(store.config):
        run = store.client.create_run(
            store.experiment_id,
            start_time=round(time.time() * 1000) if started_ms is None else started_ms,
            tags={**{key: shortened(value, MOST_TAG) for key, value in given.items()}, **always},
            run_name=shown,
        )
    return str(run.info.run_id)


def shortened(text: str, most: int = MOST_NAME) -> str:
    """Return a text of that many characters at most: what is too much is left out in the middle."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"
