"""The registry of latency models: versions, the champion's alias and who held it."""

import html
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pepper.documents import first_fault
from pepper.errors import TrackingError
from pepper.tracking.record import NewVersion
from pepper.tracking.store import Store, reaching
from pepper.tracking.user import user

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
MODEL_FOLDER = "model"
"""Where a training's run has the model, below its artifacts."""
_PROMOTION = "pepper.promotion."


@dataclass(frozen=True)
class Promotion:
    """One move of the champion's alias.

    Attributes:
        version: The version that became the champion.
        previous: The one that was before; None if there was none.
        who: The user.
        unix_s: When.
        why: In words: the comparison, or a person's reason.
        error: Mean relative error of the new champion on the held-out rows; None where not compared.
        previous_error: The same of the one before.
        rollback: Whether this gave the alias back to an earlier champion.
    """

    version: int
    previous: int | None
    who: str
    unix_s: float
    why: str
    error: float | None = None
    previous_error: float | None = None
    rollback: bool = False


class Registry:
    """Versions of one registered model.

    Args:
        store: An open store.
        name: The registered model's name.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        self._store = store
        self._client = store.client

    def register(self, run_id: str, new: NewVersion) -> int:
        """Register the model that a run holds, and return its version.

        Args:
            run_id: The run.
            new: What the version says of itself.

        Raises:
            TrackingError: The store does not answer.
        """
        from mlflow.exceptions import MlflowException

        with reaching(self._store.config):
            try:
                self._client.create_registered_model(
                    self.name, description="Latency of parts of ONNX models on devices under load."
                )
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            source = f"{self._client.get_run(run_id).info.artifact_uri}/{MODEL_FOLDER}"
            version = self._client.create_model_version(
                self.name, source, run_id, tags=dict(new.tags), description=new.description
            )
        return int(version.version)

    def version_of(self, run_id: str) -> int | None:
        """Return the newest version that was made of a run; None if there is none."""
        with reaching(self._store.config):
            found = self._client.search_model_versions(f"run_id='{run_id}'")
        return max((int(version.version) for version in found if version.name == self.name), default=None)

    def versions(self) -> list[int]:
        """Return every version that was not deleted, oldest first."""
        return sorted(int(version.version) for version in self._all())

    def champion(self) -> int | None:
        """Return the version that the alias points to, whoever put it there; None if there is none."""
        from mlflow.exceptions import MlflowException

        with reaching(self._store.config):
            try:
                return int(self._client.get_model_version_by_alias(self.name, CHAMPION).version)
            except MlflowException as error:
                if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

    def tags(self, version: int) -> dict[str, str]:
        """Return the tags of a version.

        Raises:
            TrackingError: There is no such version.
        """
        return dict(self._get(version).tags)

    def run_id(self, version: int) -> str:
        """Return the run of the training that made a version.

        Raises:
            TrackingError: There is no such version.
        """
        return str(self._get(version).run_id)

    def lineage(self, version: int) -> dict[str, Any]:
        """Return where a version's predictions come from: its model, the training's run, the data it learned from.

        Raises:
            TrackingError: There is no such version.
        """
        tags = self.tags(version)
        return {
            "latency_model": self.name,
            "latency_model_version": version,
            "training_run": self.run_id(version),
            "dataset_digest": tags.get("dataset_digest", ""),
            "features_digest": tags.get("features_digest", ""),
        }

    @contextmanager
    def artifacts(self, version: int, folder: str = "") -> Iterator[Path]:
        """Give the artifacts of the training that made a version, or a folder of them, for a while.

        Raises:
            TrackingError: There is no such version, or its artifacts are gone.
        """
        run_id = self.run_id(version)
        with tempfile.TemporaryDirectory() as scratch:
            with reaching(self._store.config):
                self._client.download_artifacts(run_id, folder, scratch)
            yield Path(scratch) / folder

    def promote(self, promotion: Promotion) -> None:
        """Move the alias and keep who did it, when and why, with the version.

        Raises:
            TrackingError: The store does not answer.
        """
        with reaching(self._store.config):
            key = f"{_PROMOTION}{round(promotion.unix_s * 1000)}"
            self._client.set_model_version_tag(self.name, str(promotion.version), key, json.dumps(asdict(promotion)))
            self._client.set_registered_model_alias(self.name, CHAMPION, str(promotion.version))
            self._describe(promotion)

    def history(self) -> list[Promotion]:
        """Return every promotion, oldest first; those of deleted versions are gone with them.

        A tag that somebody changed so that it says none is left out, and that is said on stderr.
        """
        from pydantic import TypeAdapter, ValidationError

        promotions = TypeAdapter(Promotion)
        found = []
        for version in self._all():
            for key, value in version.tags.items():
                if not key.startswith(_PROMOTION):
                    continue
                try:
                    found.append(promotions.validate_json(value, strict=True))
                except ValidationError as error:
                    print(
                        f"{self.name} version {version.version}: tag {key} says no promotion ({first_fault(error)}):"
                        " left out",
                        file=sys.stderr,
                    )
        return sorted(found, key=lambda promotion: promotion.unix_s)

    def before(self, version: int) -> int | None:
        """Return the champion that a rollback from this one goes back to; None if there is none.

        Promotions are stacked, and a rollback takes off all above the version that it went back to. Where a person
        moved the alias to this version, it is the last champion that pepper made.
        """
        stack: list[int] = []
        for promotion in self.history():
            if promotion.rollback:
                while stack and stack[-1] != promotion.version:
                    stack.pop()
            elif promotion.previous is not None and promotion.previous not in stack[-1:]:
                stack.append(promotion.previous)  # a person put it there
            if promotion.version not in stack[-1:]:
                stack.append(promotion.version)
        if version in stack[-1:]:
            stack.pop()
        return stack[-1] if stack else None

    def _describe(self, promotion: Promotion) -> None:
        """Say with the version itself that it became the champion, newest first."""
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(promotion.unix_s))
        line = html.escape(f"Champion since {when}, by {promotion.who}: {promotion.why}", quote=False)
        before = self._get(promotion.version).description or ""
        self._client.update_model_version(self.name, str(promotion.version), f"{line}\n\n{before}")

    def _get(self, version: int) -> "ModelVersion":
        from mlflow.exceptions import MlflowException

        with reaching(self._store.config):
            try:
                return self._client.get_model_version(self.name, str(version))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        known = ", ".join(map(str, self.versions())) or "none; train one with task=train"
        raise TrackingError(f"{self.name} has no version {version} (versions: {known})")

    def _all(self) -> "list[ModelVersion]":
        versions: list[ModelVersion] = []
        token = None
        with reaching(self._store.config):
            while True:
                page = self._client.search_model_versions(f"name='{self.name}'", max_results=1000, page_token=token)
                versions += page
                token = page.token
                if not token:
                    return versions


def promotion(version: int, previous: int | None, why: str, *scores: float, rollback: bool = False) -> Promotion:
    """Return a promotion by this user, now; ``scores`` are the errors of the new and the old champion."""
    error, previous_error = (*scores, None, None)[:2]
    return Promotion(version, previous, user(), time.time(), why, error, previous_error, rollback)


def write_signature(folder: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Write MLflow's ``MLmodel`` file into a model's folder: what goes in, what comes out, and what loads it.

    So ``mlflow models serve`` serves a version where pepper is installed.
    """
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec("double", name) for name in inputs]),
        outputs=Schema([ColSpec("double", name) for name in outputs]),
    )
    model = Model(artifact_path=MODEL_FOLDER, signature=signature)
    pyfunc.add_to_model(model, loader_module="pepper.latency.served", data=".")
    model.save(str(folder / "MLmodel"))
