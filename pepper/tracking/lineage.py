"""What leads from one run to another: the datasets behind it, and an end that says whether all of it was logged."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pepper.tracking.store import Store, reaching

if TYPE_CHECKING:
    from mlflow import MlflowClient


@contextlib.contextmanager
def ending(store: Store, run_id: str, status: str = "FINISHED", at_ms: int | None = None) -> Iterator[None]:
    """End a run with a status, or as failed if what is logged meanwhile is refused.

    Args:
        store: The store.
        run_id: The run.
        status: How it ended.
        at_ms: When, UNIX time; None is now.

    Raises:
        TrackingError: The store does not answer.
    """
    with reaching(store.config):
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):  # the store may be gone; the first error is the one to say
                store.client.set_terminated(run_id, "FAILED")
            raise
        store.client.set_terminated(run_id, status, at_ms)


def hand_on_datasets(client: "MlflowClient", training_run: str | None, run_id: str) -> None:
    """Make a training's datasets inputs of a run, so that MLflow leads from it to the profiles.

    A training that this store does not know, as where a plan comes from another one, has none to hand on.
    """
    from mlflow.exceptions import MlflowException

    if not training_run:
        return
    try:
        inputs = client.get_run(training_run).inputs
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return
    if inputs is not None and inputs.dataset_inputs:
        client.log_inputs(run_id, datasets=inputs.dataset_inputs)
