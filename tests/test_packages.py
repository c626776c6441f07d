"""Which package a module comes from, where several bring the same."""

from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from pepper import packages
from pepper.packages import Package, onnxruntime, onnxruntime_version


@pytest.mark.parametrize(
    ("name", "version"), [("onnxruntime", "1.32.0"), ("onnxruntime-gpu", "1.31.1"), ("onnxruntime-openvino", "1.24.1")]
)
def test_onnxruntime_says_whose_it_is(name: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else is listed as installed: of two packages only the later one's files are there."""
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / "build_and_package_info.py").write_text(
        f"package_name = '{name}'\n__version__ = '{version}'\ncuda_version = '13.0'\n"
    )
    spec = ModuleSpec("onnxruntime", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(packages, "find_spec", lambda _: spec)
    onnxruntime.cache_clear()
    try:
        assert onnxruntime() == Package(name, version)
        assert onnxruntime_version() == (version if name == "onnxruntime" else f"{name} {version}")
        monkeypatch.setattr(packages, "find_spec", lambda _: None)
        onnxruntime.cache_clear()
        assert onnxruntime_version() is None
    finally:
        onnxruntime.cache_clear()


def test_what_runs_here_is_found() -> None:
    import onnxruntime as runs

    found = onnxruntime()
    assert found is not None
    assert found.version == runs.__version__
