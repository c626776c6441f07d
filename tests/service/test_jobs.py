"""What takes long: jobs that are awaited, cancelled, refused and kept; and the routes of PEPPER's clients."""

import re
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import psutil
import pytest
from harness import Desk, alive, descendants, lasting, running, wait_until

from pepper.service.jobs import JobStore, State
from pepper.service.problems import Refused
from tests.service.conftest import Client, served, unzipped


def ended(client: Client, job: str) -> Any:
    return wait_until(
        lambda: (
            found if (found := client("GET", f"/v1/jobs/{job}?wait_seconds=20").json())["ended"] is not None else None
        ),
        timeout_s=120,
    )


def test_the_sequence_of_a_paper_client(client: Client, desk: Desk) -> None:
    file = desk.folder / "net.onnx"
    sizes = {"model_input_size": "49152", "model_output_size": "8192"}
    kept = client("POST", "/upload", files={"file": ("net.onnx", file.read_bytes())}, data=sizes)
    assert kept.status_code == 201, kept.text
    assert set(kept.json()) == {"message", "filepath", "status", "model_characteristics", "profiling_prediction"}
    told = kept.json()["profiling_prediction"]
    assert set(told) == {"class", "device_model", "model", "node", "node_uuid", "predicted_execution_time"}
    assert told["predicted_execution_time"] > 0

    characteristics = {**kept.json()["model_characteristics"], "model_input_size": 49152, "model_output_size": 8192}
    said = client("POST", "/api/profiling", json=characteristics)
    assert said.status_code == 200, said.text
    assert set(said.json()) == {"status", "message", "model_characteristics", "profiling_prediction"}
    assert said.json()["model_characteristics"] == kept.json()["model_characteristics"]
    assert said.json()["profiling_prediction"]["node"] in [node["name"] for node in client("GET", "/v1/fleet").json()]

    taken = client("POST", "/jobs/upload", files={"model": ("net.onnx", file.read_bytes())}, data={"bridge_dist": "3"})
    assert taken.status_code == 202, taken.text
    assert set(taken.json()) == {"job_id", "status"}
    job = taken.json()["job_id"]
    early = client("POST", f"/jobs/{job}/submodels")
    assert early.status_code == 409
    assert ended(client, job)["state"] == "done", ended(client, job)
    assert client("GET", f"/jobs/{job}/status").json() == {"job_id": job, "status": "done"}
    parts = unzipped(client("POST", f"/jobs/{job}/submodels").content)
    assert len(parts) > 2
    values = {"input": np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32)}
    whole = ort.InferenceSession(str(file)).run(None, values)[0]
    for number in range(1, len(parts) + 1):
        session = ort.InferenceSession(parts[f"model_part{number}.onnx"])
        names = [each.name for each in session.get_outputs()]
        values = dict(zip(names, session.run(None, values), strict=True))
    np.testing.assert_allclose(next(iter(values.values())), whole, rtol=1e-4)


@pytest.mark.slow
def test_jobs_by_their_tasks(client: Client, desk: Desk) -> None:
    model = client.upload(desk.folder / "net.onnx")
    asked = client("POST", "/v1/split", json={"model": model, "parts": 2})
    assert asked.status_code == 202
    split = asked.json()["job"]
    assert asked.headers["Location"] == f"/v1/jobs/{split}"
    profile = client("POST", "/v1/profile", json={"model": model, "device": "share100"}).json()["job"]
    assert [job["job"] for job in client("GET", "/v1/jobs").json()][-2:] == [split, profile]
    assert done(client, profile)["cells"][0]["verdict"]
    assert len(done(client, split)["parts"]) == 2
    files = unzipped(client("GET", f"/v1/jobs/{split}/parts").content)
    assert set(files) == {"manifest.json", "part_1.onnx", "part_2.onnx"}
    onnx.checker.check_model(onnx.load_from_string(files["part_1.onnx"]))
    assert client("GET", f"/v1/jobs/{profile}/parts").status_code == 409


def done(client: Client, job: str) -> Any:
    """What a job gave; no path of the service's own is in it."""
    assert ended(client, job)["state"] == "done", ended(client, job)
    result = client("GET", f"/v1/jobs/{job}/result")
    assert "/service/" not in result.text
    return result.json()


def test_what_a_job_cannot_do_is_said(client: Client, models: dict[str, Path]) -> None:
    model = client.upload(models["tiny"])
    refused = client("POST", "/v1/place", json={"model": model, "fleet": "three_share"})
    assert (refused.status_code, "did you mean" in refused.json()["detail"]) == (422, True)
    assert client("POST", "/v1/split", json={"model": model, "parts": 2, "every": True}).status_code == 422
    job = client("POST", "/v1/split", json={"model": model, "parts": 99}).json()["job"]
    found = ended(client, job)
    assert found["state"] == "error"
    assert found["problem"]["key"] == "split.parts"
    assert found["problem"]["fix"]
    assert client("GET", f"/v1/jobs/{job}/result").status_code == 409
    assert client("GET", "/v1/jobs/" + "0" * 32).status_code == 404
    assert client("DELETE", f"/v1/jobs/{job}").status_code == 409


def test_a_full_queue_cancelling_and_expiry(desk: Desk, models: dict[str, Path]) -> None:
    with served(desk, "serve.open=true", "serve.queue=1", "device=share100", *lasting(60)) as client:
        model = client.upload(models["tiny"])
        runs = client("POST", "/v1/profile", json={"model": model})
        wait_until(lambda: client("GET", f"/v1/jobs/{runs.json()['job']}").json()["state"] == "processing")
        waits = client("POST", "/v1/profile", json={"model": model})
        full = client("POST", "/v1/profile", json={"model": model})
        assert (full.status_code, full.json()["key"], full.headers["Retry-After"]) == (429, "serve.queue", "10")
        wait_until(lambda: len(descendants(psutil.Process().pid)) > 1)
        for job in (waits, runs):
            assert client("DELETE", f"/v1/jobs/{job.json()['job']}").json()["state"] == "cancelled"
        wait_until(lambda: not profiling())
        assert done(client, client("POST", "/v1/split", json={"model": model, "parts": 2}).json()["job"])


def test_results_expire_and_are_remembered_as_that(tmp_path: Path) -> None:
    store = JobStore(tmp_path, 16, keep_s=0.05)
    job = store.add("split", "somebody", ["{home}/parts"]).job
    taken = store.take()
    assert taken is not None
    assert (taken[0].state, taken[1]) == ("processing", [f"{tmp_path}/{job}/parts"])
    store.home(job).mkdir()
    store.expire()
    store.end(job, State.done)
    store.end(job, State.error)
    assert store.get(job).state == "done", "what has ended stays as it is"
    time.sleep(0.1)
    store.expire()
    with pytest.raises(Refused) as refused:
        store.get(job)
    assert (refused.value.status, store.home(job).exists(), store.all()) == (410, False, [])
    store.close()


def profiling() -> list[psutil.Process]:
    return running("task=profile", psutil.Process().pid)


@pytest.mark.slow
def test_a_service_that_is_killed_loses_no_job_and_runs_none_twice(desk: Desk, models: dict[str, Path]) -> None:
    command = (
        *("task=serve", "serve.open=true", "serve.port=0", f"serve.folder={desk.folder}/killed", "device=share100"),
        *lasting(2),
    )
    jobs: list[str] = []
    before = len(desk.runs())

    def begun() -> tuple[Any, Client]:
        service = desk.start(*command)
        assert service.stdout is not None
        found = re.search(r"http://\S+(?=,)", service.stdout.readline())
        assert found
        return service, Client(found[0])

    for attempt in range(2):
        service, client = begun()
        model = client.upload(models["tiny"])
        jobs += [client("POST", "/v1/profile", json={"model": model, "threads": 1}).json()["job"]]
        wait_until(partial(processing, client))
        time.sleep(attempt * 2)
        started = descendants(service.pid)
        service.kill()
        service.wait()
        wait_until(lambda left=started: not alive(left))
    service, client = begun()
    assert [job["job"] for job in client("GET", "/v1/jobs").json()] == jobs
    assert [ended(client, job)["state"] for job in jobs] == ["done"] * 2
    runs = [run for run in desk.runs()[before:] if run.info.status == "FINISHED"]
    logged = [client("GET", f"/v1/jobs/{job}/result").json()["run_id"] for job in jobs]
    assert sorted(logged) == sorted(run.info.run_id for run in runs)


def processing(client: Client) -> bool:
    return "processing" in [job["state"] for job in client("GET", "/v1/jobs").json()]
