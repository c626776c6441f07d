"""The latency model that pepper ships, as it lies in the package."""

import json
import shutil
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest

from pepper.errors import LatencyError
from pepper.planning import shipped
from pepper.planning.latency_models import load_spread, load_version, noise_floor, trained_rows
from pepper.planning.shipped import FOLDER, SHIPPED, LatencyModels
from pepper.tracking.registry import MODEL_FOLDER


@pytest.fixture
def registry() -> LatencyModels:
    """One whose store is never asked."""
    made = LatencyModels.__new__(LatencyModels)
    made.name = "mine"
    return made


def test_all_that_a_version_has_is_there_and_fits_this_pepper(registry: LatencyModels) -> None:
    model, rows = load_version(registry, SHIPPED), trained_rows(registry, SHIPPED)
    predicted = model.predict(rows.features)
    assert np.median(np.abs(predicted.p50_ms / rows.p50_ms - 1)) < 0.15
    assert load_spread(registry, SHIPPED)
    noise_floor(registry, SHIPPED)
    facts = registry.lineage(SHIPPED)
    assert facts["latency_model_version"] == SHIPPED
    assert facts["dataset_digest"]


def test_its_interval_holds_for_models_that_were_left_out(registry: LatencyModels) -> None:
    """Of all left-out models together; its data sheet has each of them."""
    kept = load_version(registry, SHIPPED).interval
    assert kept.low < 1 < kept.high
    assert all(times > 0 for times in kept.wider.values())
    assert 0.85 < pd.read_csv(FOLDER / "predictions.csv")["inside_without_model"].mean() < 0.97


def test_it_is_small_and_names_no_path_of_the_machine_that_measured() -> None:
    files = [file for file in FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 5e6
    paths = pd.read_csv(FOLDER / "cells.csv")["params.model_path"].unique()
    assert all(cast(str, path).startswith("pkg://") for path in paths)


def test_one_of_other_features_is_refused_in_a_line(
    registry: LatencyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(FOLDER / MODEL_FOLDER, tmp_path / MODEL_FOLDER)
    file = tmp_path / MODEL_FOLDER / "latency_model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "features_digest": "of another pepper"}))
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(LatencyError, match=r"^the latency model that pepper ships: trained on another .*task=train"):
        load_version(registry, SHIPPED)
