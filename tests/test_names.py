"""Models of one name are told apart, and a model that has its name alone keeps it."""

from pepper.names import Measured, display_names


def run(path: str, sha256: str, part: str = "", whole: str = "") -> Measured:
    family = {"family": "model", "family_path": path, "family_sha256": whole or sha256}
    return Measured.of({"model": f"model{part}", "model_path": path, "model_sha256": sha256, **family})


def test_a_name_that_no_other_model_has_stays_as_it_is() -> None:
    assert display_names([run("/a/model.onnx", "1" * 64), run("/b/model.onnx", "1" * 64)]) == ["model", "model"]


def test_different_files_of_one_name_are_called_by_their_folders() -> None:
    runs = [run("/a/model.onnx", "1" * 64), run("/b/model.onnx", "2" * 64), run("/a/model.onnx", "1" * 64)]
    assert display_names(runs) == ["a/model", "b/model", "a/model"]


def test_different_files_that_lay_at_one_path_are_called_by_their_hashes() -> None:
    runs = [run("/a/model.onnx", "1" * 64), run("/a/model.onnx", "2" * 64)]
    assert display_names(runs) == ["model (11111111)", "model (22222222)"]


def test_parts_are_called_by_their_model() -> None:
    runs = [run("/a/model.onnx", "3" * 64, "[0:2]", "1" * 64), run("/b/model.onnx", "4" * 64, "[0:2]", "2" * 64)]
    assert display_names(runs) == ["a/model[0:2]", "b/model[0:2]"]
