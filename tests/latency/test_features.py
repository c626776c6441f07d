import numpy as np
import pytest

from pepper.graph import characteristics
from pepper.latency.features import COLUMN, FEATURES, Setting, digest, rows


def test_a_row_holds_the_part_and_its_setting_under_their_names() -> None:
    part = np.arange(len(characteristics.FEATURES), dtype=float)[None]
    row = rows(part, Setting(device_gflops=50, load_percent=25, load_cores=1))[0]
    assert row.shape == (len(FEATURES),)
    assert row[COLUMN["macs"]] == characteristics.FEATURES.index("macs")
    assert row[COLUMN["device_gflops"]] == 50
    assert row[COLUMN["load_slowdown"]] == pytest.approx(4 / 3)


def test_a_setting_reads_text_as_mlflow_gives_it() -> None:
    params = {"device_gflops": "52.4", "threads": "2", "parallel": "True", "optimization": "basic", "share": "None"}
    assert Setting.from_params(params) == Setting(device_gflops=52.4, threads=2, parallel=1, optimization=1)
    assert Setting.from_params({"load_percent": None}).load_percent == 0


@pytest.mark.parametrize(
    ("percent", "loaded", "cores", "slowdown"),
    [(0, 0, 1, 1), (25, 1, 1, 4 / 3), (50, 1, 1, 2), (90, 1, 1, 2), (100, 1, 2, 4 / 3), (100, 2, 2, 2)],
)
def test_slowdown_under_fair_sharing(percent: float, loaded: int, cores: int, slowdown: float) -> None:
    assert Setting(load_percent=percent, load_cores=loaded, device_cores=cores).slowdown == pytest.approx(slowdown)


def test_the_digest_depends_on_names_and_their_order() -> None:
    assert digest() == digest(FEATURES)
    assert digest() != digest(FEATURES[::-1])
    assert digest() != digest(FEATURES[:-1])
