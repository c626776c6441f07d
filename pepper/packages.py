"""Installed packages that come under several names, told without importing them."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

ONNXRUNTIME = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-directml",
    "onnxruntime-migraphx",
    "onnxruntime-rocm",
    "onnxruntime-webgpu",
)
"""Packages that bring the module ``onnxruntime``; of two of them the one that was installed last is what runs."""

XGBOOST = ("xgboost", "xgboost-cpu", "xgboost-cu12", "xgboost-cu13")
"""Packages that bring the module ``xgboost``."""

_SAID = re.compile(r"^(package_name|__version__) *= *['\"](.+)['\"]", re.MULTILINE)


@dataclass(frozen=True)
class Package:
    """An installed package.

    Attributes:
        name: Its name.
        version: Its version.
    """

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@cache
def installed(names: tuple[str, ...]) -> tuple[Package, ...]:
    """Return which of some packages are installed, in this order."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in names:
        try:
            found.append(Package(name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)


@cache
def onnxruntime() -> Package | None:
    """Return the package whose ``onnxruntime`` is imported here; None if there is none.

    Where two were installed over each other, both are listed but the files are the later one's: these say whose.
    """
    spec = find_spec("onnxruntime")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder) / "capi" / "build_and_package_info.py"
        said = dict(_SAID.findall(file.read_text())) if file.is_file() else {}
        if "__version__" in said:
            return Package(said.get("package_name", "onnxruntime"), said["__version__"])
    return next(iter(installed(ONNXRUNTIME)), None) if spec else None


def onnxruntime_version() -> str | None:
    """Return onnxruntime's version, with its package where that is another than the common one."""
    package = onnxruntime()
    if package is None:
        return None
    return package.version if package.name == ONNXRUNTIME[0] else str(package)
