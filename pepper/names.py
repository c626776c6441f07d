"""What models are called where several have one name: names are for people, hashes for identity."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Self

PARAMS = ("model", "model_sha256", "model_path", "family", "family_path", "family_sha256")
"""The parameters of a run that say what it measured."""
DIGITS = 24
"""Of a hash, these tell models apart."""
MOST_FOLDERS = 3
"""How many folders a name may begin with to be told from others."""
_OLD_PART = re.compile(rf"/([0-9a-f]{{{DIGITS}}})-\d+-\d+/")


@dataclass(frozen=True)
class Whole:
    """A model that a run measured, or measured a part of.

    Attributes:
        name: What it is called.
        path: Its file.
        sha256: The beginning of its hash; empty where an older run did not keep it.
    """

    name: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Measured:
    """What a run measured.

    Attributes:
        whole: The model.
        part: What follows the model's name in the part's; empty where the whole model was measured.
        sha256: Hash of the file that was measured.
    """

    whole: Whole
    part: str
    sha256: str

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Self:
        """Read it from a run's parameters; anything may be missing."""
        known = {key: value for key, value in params.items() if isinstance(value, str) and value != "None"}
        model, sha256, path = (known.get(key, "") for key in ("model", "model_sha256", "model_path"))
        name = known.get("family", model)
        if not model.startswith(name):
            name = model
        part = model.removeprefix(name)
        if "family_sha256" in known:
            whole = Whole(name, known.get("family_path", ""), known["family_sha256"][:DIGITS])
        elif part:
            kept = _OLD_PART.search(path)
            whole = Whole(name, "", kept[1] if kept else "")
        else:
            whole = Whole(name, path, sha256[:DIGITS])
        return cls(whole, part, sha256)


def distinct_names(models: Sequence[Whole]) -> list[str]:
    """Make names different where different models share one: by their folders, else by their hashes.

    Args:
        models: One model may be listed several times.
    """
    paths: dict[str, dict[str, str]] = {}
    for model in models:
        paths.setdefault(model.name, {})[model.sha256] = model.path
    names = {name: _distinct(name, files) for name, files in paths.items()}
    return [names[model.name][model.sha256] for model in models]


def wholes(measured: Sequence[Measured]) -> list[Whole]:
    """Return the model of each run, which goes by the last name that it had.

    A part whose run did not keep the model's hash is counted to the only model of that name, if there is one; else it
    has what `only_named` says for a hash.
    """
    hashes: dict[str, set[str]] = {}
    for each in measured:
        hashes.setdefault(each.whole.name, set()).update({each.whole.sha256} - {""})
    latest: dict[str, Whole] = {}
    found = []
    for each in measured:
        whole, of_name = each.whole, hashes[each.whole.name]
        if not whole.sha256 and len(of_name) == 1:
            whole = replace(whole, sha256=next(iter(of_name)))
        key = whole.sha256 or only_named(whole.name)
        before = latest.get(key)
        latest[key] = replace(whole, path=whole.path or (before.path if before else ""))
        found.append(key)
    return [replace(latest[key], sha256=key) for key in found]


def only_named(name: str) -> str:
    """Return what stands for the hash of a model of which only the name is known."""
    return f"named {name}"


def display_names(measured: Sequence[Measured]) -> list[str]:
    """Return what each measured model or part is called beside the others."""
    names = zip(distinct_names(wholes(measured)), measured, strict=True)
    return distinct_names([Whole(name + each.part, "", each.sha256) for name, each in names])


def _distinct(name: str, paths: Mapping[str, str]) -> dict[str, str]:
    """Return a name for each hash."""
    if len(paths) == 1:
        return dict.fromkeys(paths, name)
    for depth in range(1, MOST_FOLDERS + 1):
        folders = {sha256: PurePath(path).parent.parts[-depth:] for sha256, path in paths.items()}
        if len(set(folders.values())) == len(paths) and all(folders.values()):
            return {sha256: "/".join([*parts, name]) for sha256, parts in folders.items()}
    return {sha256: f"{name} ({sha256[:8] or 'hash unknown'})" for sha256 in paths}
