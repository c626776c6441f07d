"""Bundles are checked whole where they are read."""

from dataclasses import asdict, replace
from json import dumps
from pathlib import Path

import pytest

from pepper.config.hosting import HostsConfig
from pepper.errors import ConfigError
from pepper.hosts.bundles import issue, read_bundle


@pytest.mark.parametrize("key", ["damaged", "another's"])
def test_a_bundle_whose_key_does_not_fit_is_refused_in_a_line(tmp_path: Path, key: str) -> None:
    head, camera = issue(HostsConfig(address="127.0.0.1:8786", folder=str(tmp_path), names=["camera"]))
    bundle = read_bundle(camera)
    wrong = bundle.key[:-40] if key == "damaged" else read_bundle(head).key
    camera.write_text(dumps(asdict(replace(bundle, key=wrong))))
    with pytest.raises(ConfigError, match=r"^hosts.bundle=.*camera.json: is no bundle; make one with") as refused:
        read_bundle(camera)
    assert "\n" not in str(refused.value)
