"""Whatever clients send, the answer is one that the OpenAPI document names; and no file that they send does harm."""

import random
from pathlib import Path
from typing import Any

import onnx
import pytest
from harness import Desk
from hypothesis import HealthCheck, given, settings
from onnx import TensorProto

from tests.service.conftest import Client

schemathesis = pytest.importorskip("schemathesis")

quickly = settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.mark.slow
def test_no_answer_that_is_not_documented(client: Client) -> None:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    wanted = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    operations = [
        each.ok() for each in schemathesis.openapi.from_url(f"{client.address}/openapi.json").get_all_operations()
    ]
    assert len(operations) > 20
    for operation in operations:

        @quickly
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            case.call_and_validate(checks=wanted)

        ask()


def mutated(good: bytes, rng: random.Random) -> bytes:
    """Cut off, overwrite, repeat or drop some of a file."""
    start, stop = sorted(rng.randrange(len(good)) for _ in range(2))
    return rng.choice(
        [
            good[:start],
            good[:start] + rng.randbytes(min(stop - start, 64)) + good[start + min(stop - start, 64) :],
            good[:stop] + good[start:],
            good[:start] + good[stop:],
        ]
    )


@pytest.mark.slow
def test_files_that_are_no_models_do_no_harm(client: Client, models: dict[str, Path], desk: Desk) -> None:
    good, rng = models["tiny"].read_bytes(), random.Random(0)
    outside = onnx.load(models["tiny"])
    weight = outside.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="tokens.json")
    bomb = b"\x3a" + b"\xfe\xff\x1f" + b"\x0a\x00" * 262_000
    sent = [outside.SerializeToString(), bomb, b"PK\x03\x04" + good, *(mutated(good, rng) for _ in range(3))]
    kept = desk.folder / "service" / "models"
    for content in sent:
        answer = client("POST", "/v1/models", data=content, headers={"Content-Type": "application/octet-stream"})
        assert answer.status_code in (200, 201, 422), answer.text
        if answer.status_code == 422:
            assert "\n" not in answer.json()["detail"]
            assert "/service/" not in answer.text
    assert not list(kept.glob(".*")), "nothing half received is left"
    assert {file.stem for file in kept.glob("*.onnx")} == {file.stem for file in kept.glob("*.json")}
    assert client("GET", "/healthz").status_code == 200
