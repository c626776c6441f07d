"""The models that clients have sent: kept by content hash, each checked before it is kept."""

import asyncio
import contextlib
import hashlib
import json
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from pepper.config import ServeConfig
from pepper.documents import MOST_BYTES, read_bytes
from pepper.service.child import environment
from pepper.service.problems import Refused, refusal_in

_CHECK = "pepper.graph.admission"


class Border(BaseModel):
    """A tensor at a model's border."""

    name: str
    dtype: str = Field(examples=["float"])
    shape: list[int | str | None] | None = Field(examples=[[1, 3, 224, 224]])


class KeptModel(BaseModel):
    """A model that is kept."""

    model: str = Field(description="SHA-256 of its file: how requests name it", examples=["a" * 64])
    bytes: int
    inputs: list[Border]
    outputs: list[Border]
    operators: int | None = Field(description="null where sizes must be given first")
    sizes_wanted: str | None = Field(description="Which sizes requests must give, and how; null if none")


class Shelf:
    """Models on disk, ``SHA256.onnx`` and beside each what is known of it.

    Args:
        folder: The folder.
        config: Limits.
    """

    def __init__(self, folder: Path, config: ServeConfig) -> None:
        self._folder, self._config = folder, config
        self._checks = asyncio.Semaphore(1)
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*"):  # half received when the service ended
            left.unlink()

    def file(self, model: str) -> Path:
        """Return a model's file.

        Raises:
            Refused: There is none.
        """
        file = self._folder / f"{model}.onnx"
        if not file.with_suffix(".json").is_file():
            raise _no_model(model)
        return file

    def count(self) -> int:
        """Return how many models are kept."""
        return sum(1 for _ in self._folder.glob("[!.]*.json"))

    def known(self, model: str) -> KeptModel:
        """Return what is known of a model.

        Raises:
            Refused: There is none.
        """
        try:
            return KeptModel.model_validate_json(read_bytes(self._folder / f"{model}.json", MOST_BYTES))
        except (OSError, ValueError) as error:  # not there, or damaged: it can be uploaded again
            raise _no_model(model) from error

    def all(self) -> list[KeptModel]:
        """Return all models, by their hashes."""
        names = sorted(file.stem for file in self._folder.glob("[!.]*.json"))
        found = []
        for name in names:
            with contextlib.suppress(Refused):  # deleted meanwhile
                found.append(self.known(name))
        return found

    def delete(self, model: str) -> None:
        """Delete a model.

        Raises:
            Refused: There is none.
        """
        file = self.file(model)
        file.with_suffix(".json").unlink(missing_ok=True)
        file.unlink(missing_ok=True)

    async def keep(self, chunks: AsyncIterator[bytes]) -> tuple[KeptModel, bool]:
        """Receive a model and keep it, if it is one; returns what is known of it, and whether it is new.

        Raises:
            Refused: It is too large, no valid model, or takes too much time or memory to read.
        """
        draft = self._folder / f".{uuid.uuid4().hex}.onnx"
        digest, size, most = hashlib.sha256(), 0, self._config.max_model_bytes
        try:
            with draft.open("xb") as stream:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > most:
                        raise Refused(
                            413,
                            f"the model has more than {most} bytes",
                            "serve.max_model_bytes",
                            "send a smaller one, or have serve.max_model_bytes raised",
                        )
                    digest.update(chunk)
                    await asyncio.to_thread(stream.write, chunk)
            model = digest.hexdigest()
            with contextlib.suppress(Refused):
                return self.known(model), False
            if self.count() >= self._config.max_models:
                raise Refused(
                    507,
                    f"{self._config.max_models} models are kept, the most that may be",
                    "serve.max_models",
                    "delete one with DELETE /v1/models/MODEL",
                )
            known = KeptModel(model=model, bytes=size, **await self._checked(draft))
            note = draft.with_suffix(".json")
            note.write_text(known.model_dump_json())
            draft.replace(self._folder / f"{model}.onnx")
            note.replace(self._folder / f"{model}.json")  # the last: what has it is whole
            return known, True
        finally:
            draft.unlink(missing_ok=True)
            draft.with_suffix(".json").unlink(missing_ok=True)

    async def _checked(self, file: Path) -> dict[str, Any]:
        """Look at a file within limits, in a process of its own, one at a time."""
        config = self._config
        limits = (str(config.check_memory_bytes), str(int(config.check_seconds) + 1))
        async with self._checks:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", _CHECK, str(file), *limits),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=environment(),
            )
            try:
                said, _ = await asyncio.wait_for(process.communicate(), config.check_seconds)
            except TimeoutError:
                said = b""
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode != 0:
            raise Refused(
                422,
                f"the file takes more than {config.check_seconds:g} s or {config.check_memory_bytes >> 20} MiB to read",
                "file",
                "export a simpler model",
            )
        answer: dict[str, Any] = json.loads(said)
        if "error" in answer:
            line = str(answer["error"]).replace(str(file), "the file")
            refused = refusal_in(" ".join(line.split()), 422)
            refused.key = "file"
            raise refused
        return answer


def _no_model(model: str) -> Refused:
    return Refused(404, f"model {model}: there is none", "model", "upload it with POST /v1/models")
