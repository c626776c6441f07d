"""Options compose and validate; what a user mistypes is said in one line, and nothing is written."""

import os
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from harness import Desk, Outcome, composed
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from pepper import config
from pepper.config import ModelConfig, PepperConfig
from pepper.config.composing import compose
from pepper.config.option_files import check_option_files
from pepper.config.overrides import Entry, entries, prepared
from pepper.errors import ConfigError, key_of
from pepper.run import main

CONF = config.conf_dir()
FILES = sorted(path for path in CONF.rglob("*.yaml") if path.name != "run.yaml")

# What the user must give for options that stand for many.
GIVEN = {
    "model/onnx": ["model.path=my.onnx"],
    "load/cpu": ["load.percent=60"],
    "tracking/server": ["tracking.uri=http://localhost:5000"],
}

GROUPS = {path.parent.name for path in FILES}

# Keys that the file's first line explains.
PLAIN = {"name", "path", "defaults"}


def option(path: Path) -> str:
    return str(path.relative_to(CONF).with_suffix(""))


def test_the_default_composes() -> None:
    cfg = composed()
    assert (cfg.task.name, cfg.model.name, cfg.device.name, cfg.load.name) == ("profile", "squeezenet", "local", "idle")
    assert cfg.sweep is None


@pytest.mark.parametrize("path", FILES, ids=option)
def test_every_option_composes(path: Path) -> None:
    group, name = option(path).split("/")
    cfg = composed(f"{'+' if group == 'sweep' else ''}{group}={name}", *GIVEN.get(option(path), []))
    assert OmegaConf.to_yaml(OmegaConf.structured(cfg))
    if group == "sweep":
        for axis, values in cfg.sweep.axes.items():
            for value in values if axis in GROUPS else (values[0], values[-1]):
                assert composes(axis, value)


@cache
def composes(axis: str, value: Any) -> bool:
    """Whether a value of a sweep's axis can be given alone."""
    return bool(getattr(composed(f"{axis}={value}"), axis.split(".")[0]))


@pytest.mark.parametrize("path", FILES, ids=option)
def test_every_option_file_explains_itself(path: Path) -> None:
    first, *rest = path.read_text().splitlines()
    assert re.match(r"# \S.{10,}", first), "the first line says what the option is: --help shows it"
    for line in rest:
        if (key := re.match(r"(\w+):", line)) and key[1] not in PLAIN:
            assert "#" in line, f"{key[1]} has no comment"


@pytest.mark.parametrize("path", FILES, ids=option)
def test_an_option_is_named_after_its_file(path: Path) -> None:
    name = yaml.safe_load(path.read_text()).get("name")
    if name is not None and "$" not in name:
        assert name == path.stem


def test_the_nine_models_of_the_onnx_package_are_there() -> None:
    packaged = [path for path in (CONF / "model").glob("*.yaml") if "pkg://onnx/" in path.read_text()]
    assert len(packaged) == 9
    files = {yaml.safe_load(path.read_text())["path"] for path in packaged}
    assert len(files) == 9


def test_a_load_is_named_by_its_percent() -> None:
    assert composed("load=cpu", "load.percent=60").load.name == "cpu60"


def test_a_model_has_a_name_of_one_line() -> None:
    with pytest.raises(ConfigError, match=r"model.name='a\\nb': .* give model.name="):
        ModelConfig("a\nb.onnx")


def test_a_model_is_named_by_its_file() -> None:
    assert composed("model=onnx", "model.path=some/where/mine.onnx").model.name == "mine"


# Each: what is typed, and what the one line must name besides.
MISTAKES = [
    (["model=squeezent"], ["model=squeezent", "did you mean 'squeezenet'"]),
    (["nonsense=1"], ["nonsense"]),
    (["load=50"], ["load=50: no such option", "cpu50"]),
    (["device=true"], ["device=true: no such option"]),
    (["sweep.rerun=all"], ["sweep.rerun: there is no sweep; give +sweep=NAME"]),
    (["devic=local"], ["devic", "did you mean 'device'"]),
    (["device.thread=1"], ["device.thread", "did you mean 'threads'"]),
    (["device.threads=many"], ["device.threads", "many"]),
    (["device.threads=1.5"], ["device.threads", "1.5"]),
    (["device.threads=0"], ["device.threads=0", "at least 1"]),
    (["device.threads=-1"], ["device.threads=-1", "at least 1"]),
    (["device.threads=4096"], ["device.threads=4096", "use at most"]),
    (["device.cores=[4095]"], ["device.cores=[4095]", "4095"]),
    (["device.cores=[-1]"], ["device.cores=[-1]"]),
    (["device.cores=[]"], ["device.cores=[]"]),
    (["device.cores=[0,0]"], ["device.cores=[0, 0]"]),
    (["device.cores=[0]", "device.threads=2"], ["device.threads=2", "lower it"]),
    (["device=share50", "device.share=0"], ["device.share=0", "above 0"]),
    (["device=share50", "device.share=1.5"], ["device.share=1.5", "at most 1"]),
    (["device=share50", "device.share=-0.5"], ["device.share=-0.5", "above 0"]),
    (["device=share50", "device.share=nan"], ["device.share=nan"]),
    (["device.share=0.5"], ["device.share=0.5", "device.kind=emulated"]),
    (["device.kind=remote"], ["device.kind=remote", "local, emulated"]),
    (["device.throttle=cgroups"], ["device.throttle=cgroups", "did you mean 'cgroup'"]),
    (["device.period_ms=0"], ["device.period_ms=0"]),
    (["device=share50", "device.memory_bytes=0"], ["device.memory_bytes=0"]),
    (["load=cpu50", "load.percent=101"], ["load.percent=101", "at most 100"]),
    (["load.percent=-1"], ["load.percent=-1"]),
    (["load=cpu"], ["load.percent"]),
    (["load=cpu50", "load.cores=4096"], ["load.cores=4096", "lower it"]),
    (["load=cpu50", "load.cores=0"], ["load.cores=0"]),
    (["load.generator=stress"], ["load.generator=stress", "stress-ng"]),
    (["model=onnx"], ["model.path"]),
    (["model.batch=0"], ["model.batch=0"]),
    (["model.shapes.data_0=[1,a]"], ["model.shapes"]),
    (["model.dims.n=0"], ["model.dims.n", "no such dimension"]),
    (["model.dims.n=4"], ["model.dims.n", "no such dimension"]),
    (["model.shapes.data=[1]"], ["model.shapes.data", "did you mean 'data_0'"]),
    (["measure.min_samples=0"], ["measure.min_samples=0"]),
    (["measure.max_seconds=-1"], ["measure.max_seconds=-1"]),
    (["measure.max_seconds=inf"], ["measure.max_seconds=inf: must be", "finite"]),
    (["link.latency_ms=inf"], ["link.latency_ms=inf: must be at least 0 and finite"]),
    (["measure.max_samples=1"], ["measure.max_samples=1", "at least 5"]),
    (["measure.session.optimization=most"], ["measure.session.optimization=most", "all"]),
    (["measure.session.spinning=perhaps"], ["measure.session.spinning", "perhaps"]),
    (["measure.session.spining=true"], ["spining", "did you mean 'spinning'"]),
    (["measure.limits.ci_percent=0"], ["measure.limits.ci_percent=0"]),
    (["measure.seed=-1"], ["measure.seed=-1"]),
    (["task=profil"], ["task=profil", "did you mean 'profile'"]),
    (["task.name=nothing"], ["task.name=nothing"]),
    (["tracking=server", "tracking.uri=???"], ["tracking.uri"]),
    (["tracking.timeout_seconds=0"], ["tracking.timeout_seconds=0"]),
    (["model=[squeezenet]"], ["model=[squeezenet]: no such option; did you mean 'squeezenet'"]),
    (["model@x=resnet50"], ["model@x: no such group"]),
    (["model.shapes.a=b=[1]"], ["write a name that holds '=' as 'model.shapes.\"NAME\"=VALUE'"]),
    (["objective.weights={ms: 1}"], ["objective.name=latency", "one of your own"]),
    (["fleet.links.camera=lte"], ["fleet.links.camera: must name two devices"]),
    (["tracking.experiment="], ["tracking.experiment=: must be a name"]),
    (["latency.registered_model=a/b"], ["latency.registered_model=a/b: must be a name without / or :"]),
    (["model.shapes=3"], ["model.shapes: must be values by name; give model.shapes.NAME=..."]),
    (["fleet.links=[wifi]"], ["fleet.links: must be values by name"]),
    (["device.threads=1,2"], ["device.threads=1,2: several values; add -m to run once for each"]),
    (["+sweep=loads", "+sweep.axes.measure.seed=3"], ["sweep.axes.measure.seed: must be a list; give sweep.axes.me"]),
    (["split.at=/m/y (1)"], ["split.at=/m/y (1): must be a list; give split.at=[...]"]),
    (["+sweep=load"], ["sweep=load", "did you mean 'loads'"]),
    (["sweep=loads"], ["+sweep=loads"]),
    (["+sweep=loads", "sweep.rerun=never"], ["sweep.rerun=never", "failed, all, none"]),
    (["+sweep=loads", "sweep.axes.load=[]"], ["sweep.axes.load", "at least one value"]),
    (["+sweep=loads", "sweep.axes.load=idle"], ["sweep.axes.load", "list", "[...]"]),
    (["device.threads"], ["device.threads"]),
    (["measure.max_seconds=long"], ["measure.max_seconds=long: must be a number"]),
    (["measure.min_samples=2.5"], ["measure.min_samples=2.5: must be a whole number"]),
    (["measure.min_samples=null"], ["measure.min_samples=null: must have a value"]),
    (["output=[text]"], ["output=[text]: must be one of text, json, quiet; did you mean 'text'?"]),
    (["output=1.5"], ["output=1.5: must be one of text, json, quiet"]),
    (["place.variants=[int4]"], ["place.variants[0]=int4: must be one of fp32, fp16, int8; did you mean 'int8'?"]),
    (["cuts.kind={a: 1}"], ["cuts.kind={a: 1}: must be one of tensors, bridges, frontiers"]),
    (["+sweep=threads", "sweep.axes.device.throttle=[none]"], ["sweep.axes.device.throttle: 'none'", "auto, cgroup"]),
    (["device.cores=text"], ["device.cores: must be a list", "device.cores=[...]"]),
    (["model.shapes.input:0=[1,5"], ["model.shapes.input:0=[1,5: not a KEY=VALUE that can be read"]),
    (["model.shapes.input:0=[1,a]"], ["model.shapes.input:0"]),
    (["model.shapes.input:0"], ["model.shapes.input:0", "KEY=VALUE"]),
    (["model.shapes.=[1]"], ["model.shapes.=[1]", "model.shapes.NAME=VALUE"]),
    (["model.shapes.'a=[1]"], ["no such input"]),
    (["model.dims.a/b=many"], ["model.dims.a/b=many: must be a whole number"]),
    (["model.inputs.data_0=word"], ["model.inputs.data_0=word: does not fit the input's type float"]),
    (["sweep.axes.model.dims.a/b=[1]"], ["sweep.axes.model.dims.a/b: there is no sweep; give +sweep=NAME too"]),
    (["measure.session.parallel=often"], ["measure.session.parallel=often: must be true or false"]),
    (["fleet.devices.serer.load=idle"], ["fleet.devices.serer", "did you mean 'server'"]),
    (["+fleet.devices.a(b)={device: share25}"], ["not a KEY=VALUE"]),
    (["device.cores=[0"], ["device.cores=[0"]),
    (["--config-dir", "nowhere"], ["nowhere"]),
]


def test_a_choice_is_called_what_it_is_written_as() -> None:
    """OmegaConf reads the members' names; files, runs and results hold their values."""
    choices = [kind for kind in kinds_of(PepperConfig) if issubclass(kind, Enum)]
    assert len(choices) == 11
    for choice in choices:
        assert {member.name: member.value for member in choice} == {text: text for text in choice}


def kinds_of(schema: type) -> Iterator[type]:
    for hint in get_type_hints(schema).values():
        for kind in (hint, *get_args(hint)):
            if is_dataclass(kind):
                yield from kinds_of(kind)
            elif isinstance(kind, type):
                yield kind


def test_an_option_file_chooses_one_of_a_few(desk: Desk) -> None:
    (desk.folder / "options" / "device").mkdir(parents=True, exist_ok=True)
    for value, said in (("[suspend]", "['suspend']"), ("2.5", "2.5"), ("suspended", "suspended")):
        (desk.folder / "options" / "device" / "mine.yaml").write_text(f"# Mine.\nname: mine\nthrottle: {value}\n")
        refused = desk("task=profile", "device=mine")
        assert f"device.throttle={said}: must be one of auto, cgroup, suspend" in refused.error


def test_a_fleets_devices_can_be_changed_one_by_one() -> None:
    cfg = compose(["fleet.devices.server.overrides.share=0.3", "fleet.hub.server=lte", "fleet.hub={edge: lte}"])
    assert cfg.fleet.devices["server"].overrides == {"share": 0.3}
    assert cfg.fleet.hub == {"server": "lte", "edge": "lte"}
    cfg = compose(["fleet.links.camera->server=lte", "objective.name=mine", "objective.weights.part=5"])
    assert cfg.fleet.links == {"camera->server": "lte"}
    assert cfg.objective.weights == {"part": 5.0}
    cfg = compose(["fleet.hub.camera.up=lte", "fleet.hub.my cam=wifi", "fleet.hub.edge={up: lte, down: wifi}"])
    assert cfg.fleet.hub == {"camera": {"up": "lte"}, "my cam": "wifi", "edge": {"up": "lte", "down": "wifi"}}


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@settings(deadline=None)
@given(ANY_TEXT, st.sampled_from(["", "+", "++"]))
@example("null", "")
def test_any_name_out_of_a_file_can_be_given(name: str, sign: str) -> None:
    assume(not {"'", '"'} <= set(name))
    assert entries(f"{sign}{key_of('model.inputs', name)}=[[1.5,2],[3,4]]") == [
        Entry("model.inputs", name, [[1.5, 2], [3, 4]])
    ]
    assert entries("model.dims.n=5") is None, "Hydra reads it"


@settings(deadline=None)
@given(ANY_TEXT)
@example("my models/net (1) = [v2] {x}, é.onnx")
@example("it's \\'quoted\\")
@example("007")
@example("true")
def test_a_path_is_taken_as_it_stands(path: str) -> None:
    assume("${" not in path and path != "???" and path.lower() != "null")
    assume(not (path[0] == path[-1] and path[0] in "'\""))
    (written,), named = prepared([f"model.path={path}"])
    assert named == []
    assert str(OverridesParser.create().parse_override(written).value()) == path


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("execute.seconds=1", "execute.trials.seconds=1"),
        ("execute.adapt=true", "execute.moves.allowed=true"),
        ("execute.load_change.server=80", "execute.moves.load_change.server=80"),
    ],
)
def test_a_key_by_its_old_name_is_answered_with_the_new_one(old: str, new: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose([old])
    assert str(error.value).endswith(f"give {new}")
    compose([new, "execute.moves.allowed=true"])


@pytest.mark.parametrize("name", ["input:0", "p2o.DynamicDimension.1", "/m.1/y (1) [x] {y}, ~é", 'a="b"'])
def test_what_is_given_is_composed(name: str) -> None:
    sizes = f"{key_of('model.shapes', name)}=[1,5,8]"
    cfg = compose(["model=onnx", sizes, f"{key_of('model.dims', name)}=5", "model.path=net (1) = é, [2].onnx"])
    assert cfg.model.shapes == {name: [1, 5, 8]}
    assert cfg.model.dims == {name: 5}
    assert cfg.model.path == "net (1) = é, [2].onnx"


def test_names_can_be_given_in_every_form() -> None:
    assert compose(['model.shapes={"input:0": [1, 5, 8], b: [2]}']).model.shapes == {"input:0": [1, 5, 8], "b": [2]}
    assert compose(["model.shapes={b:[2]}"]).model.shapes == {"b": [2]}
    assert compose(["model.dims.a/b=1", "~model.dims.a/b"]).model.dims == {}
    assert compose(["model.inputs.text=Hello, you!"]).model.inputs == {"text": "Hello, you!"}
    assert compose(["model.inputs.ids={low: 0, high: 30000}"]).model.inputs == {"ids": {"low": 0, "high": 30000}}
    assert compose(["place.pinned.edge.1=[0,2]"]).place.pinned == {"edge.1": [0, 2]}
    assert compose(["model.path='a b'", "cuts.why=null"]).model.path == "a b"


@settings(deadline=None)
@given(st.lists(ANY_TEXT.filter(lambda text: "," not in text and text.strip() == text), min_size=1, max_size=3))
@example(["/m/y (1)", "p[0]", "input:0", "é", "x=1", "it's"])
def test_a_list_of_names_is_taken_as_it_stands(names: list[str]) -> None:
    whole = f"split.at=[{','.join(names)}]"
    assume(not _reads_as_others(whole, names))
    (written,), named = prepared([whole])
    assert named == []
    assert OverridesParser.create().parse_override(written).value() == names


def _reads_as_others(override: str, names: list[str]) -> bool:
    """Whether Hydra has a meaning of its own for it: quotes, numbers, references, lists in lists."""
    try:
        return bool(OverridesParser.create().parse_override(override).value() != names)
    except HydraException:
        return any(name[0] in "'\"" and name[0] == name[-1] for name in names)


def test_a_sweep_takes_names_out_of_files_for_axes() -> None:
    overrides = ["model=onnx", "model.path=m.onnx", "+sweep=threads", "sweep.axes.model.dims.p2o.D.1=[1,2]"]
    config = compose(overrides)
    assert config.sweep is not None
    assert config.sweep.axes["model.dims.p2o.D.1"] == [1, 2]


@pytest.fixture
def clean_desk(desk: Desk) -> Desk:
    """A desk where nothing was ever run."""
    for file in (desk.folder / "mlruns").iterdir():
        file.unlink()
    (desk.folder / "mlruns").rmdir()
    return desk


@pytest.mark.parametrize(("typed_in", "named"), MISTAKES, ids=[" ".join(mistake[0]) for mistake in MISTAKES])
def test_a_mistake_is_said_in_one_line(clean_desk: Desk, typed_in: list[str], named: list[str]) -> None:
    outcome: Outcome = clean_desk(*typed_in)
    assert outcome.status == 2
    assert outcome.error.startswith("error: ")
    for text in named:
        assert text in outcome.error
    assert outcome.out == ""
    assert [path.name for path in clean_desk.folder.iterdir()] == ["options"], "something was written"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"path:\tx\n\tname: y\n", r", line 1, column 6: is no YAML: .*indent with spaces"),
        (b"name: [1, 2\n", r", line 2, column 1: is no YAML"),
        (b"# A.\nname: \xff\xfe\n", r", line 2: is no UTF-8 text"),
        (bytes(range(128, 256)), r", line 1: is no UTF-8 text"),
        (b"a\0b", r": is no YAML"),
        (b"path: a\npath: b\n", r": line 2: 'path' stands here twice"),
        (b"a: " + b"9" * 5000, r": line 1: a number of 5000 digits"),
        (b"[" * 3000, r": is no YAML: nested too deep"),
        (b"a: &a [*a]\n", r": is nested deeper than"),
        (
            b"a0: &a0 [x, x]\n" + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n + 1, n + 1, n, n) for n in range(60)),
            "expand",
        ),
        (b"#" * (1 << 20) + b"\n", r": holds more than 1 MiB"),
        (b"defaults: [{load: [idle, cpu50]}]\n", r": line 1: defaults must be a list of NAME or GROUP: NAME"),
        (b"# A.\nname: !!python/object/apply:os.system [ls]\n", r": line 2: no value has the tag .*os.system"),
    ],
    ids=[
        "tab",
        "open",
        "encoding",
        "binary",
        "nul",
        "twice",
        "digits",
        "depth",
        "circle",
        "aliases",
        "large",
        "defaults",
        "tag",
    ],
)
def test_an_option_file_that_cannot_be_composed(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    file = tmp_path / "model" / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(str(file)) + ".*" + said) as refused:
        check_option_files(tmp_path, ["model"])
    assert "\n" not in str(refused.value)


def test_option_files_are_looked_at_before_help_and_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "load").mkdir()
    (tmp_path / "load" / "mine.yaml").write_bytes(b"\xff")
    for arguments in (["--config-dir", str(tmp_path), "--help"], [f"--config-dir={tmp_path}", "task=cuts"]):
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "mine.yaml, line 1: is no UTF-8 text" in line


def test_what_is_no_file_is_no_option(tmp_path: Path) -> None:
    (tmp_path / "model" / "folder.yaml").mkdir(parents=True)
    check_option_files(tmp_path, ["model"])
    os.mkfifo(tmp_path / "model" / "pipe.yaml")
    with pytest.raises(ConfigError, match=r"pipe.yaml: is no regular file"):
        check_option_files(tmp_path, ["model"])


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("+foo=1", "foo: no such key"),
        ("+model.pth=x.onnx", "model.pth: no such key; did you mean 'path'"),
        ("+measure.session.x=1", "measure.session.x: no such key"),
    ],
)
def test_a_key_that_nothing_reads_is_refused_also_where_it_is_added(override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        compose([override])


def test_overrides_without_end_are_refused_unread() -> None:
    with pytest.raises(ConfigError, match="letters of overrides; put values as long into an option file"):
        compose([f"model.shapes.x=[{'[' * 50_000}"])


@pytest.mark.parametrize("key", ["shapes", "dims", "inputs"])
def test_a_text_in_place_of_values_by_name_is_refused(key: str) -> None:
    """An interpolation may stand for a value of any type: the schema takes it."""
    with pytest.raises(ConfigError, match=rf"model\.{key}=squeezenet: must be values by name"):
        compose(["model=squeezenet", f"model.{key}=${{model.name}}"])
