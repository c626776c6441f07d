"""What errors advise works: pepper takes each override in a message, and following it mends the complaint."""

import re
import shlex
from collections.abc import Iterator
from contextlib import suppress

import onnx
import pytest
import yaml
from advice import HOLE, advised, followed, keys, messages, typed
from harness import Desk, MakeDesk, make_model
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from onnx import helper

from pepper import config
from pepper.config.composing import compose, compose_tree
from pepper.config.overrides import assign, keys_of
from pepper.errors import ConfigError, ModelError, argument, key_of
from pepper.graph.inputs import input_spec
from pepper.graph.sizes import concrete_shapes
from pepper.graph.source import TensorSpec

# Each: what is typed, and what stands for the placeholders of the advice. MODELS/ and OUT/ are folders.
MISTAKES: list[tuple[list[str], dict[str, str]]] = [
    (["model=onnx"], {"...": "MODELS/chain.onnx"}),
    (["model=onnx", "model.path=nowhere/a\nb"], {"...": "mine"}),
    (["model.path=variant://x"], {"N": "3"}),
    (["load=cpu"], {"...": "60"}),
    (["device.cores=0"], {"[...]": "[0]"}),
    (["device.share=0.5"], {}),
    (["model.shapes.data_0=x"], {"[...]": "[1,3,224,224]"}),
    (["place.excluded=camera,edge"], {}),
    (["sweep.rerun=all"], {"NAME": "loads"}),
    (["sweep.axes.model.dims.a/b=[1]"], {"NAME": "loads"}),
    (["sweep=loads"], {}),
    (["+model=tiny"], {"OPTION": "tiny"}),
    (["execute.moves.load_change.server=80"], {}),
    (["execute.load_change.my cam=80", "execute.moves.allowed=true"], {}),
    (["promote.force=true"], {"'...'": "because"}),
    (["place.split=true"], {"DIR": "OUT/placed"}),
    ([f"~fleet.devices.{name}" for name in ("server", "edge", "camera")], {}),
    (["task=split"], {"DIR": "OUT/parts"}),
    (["task=split", "model=onnx", "model.path=MODELS/chain.onnx", "split.out=OUT/a", "split.parts=9"], {}),
    (["task=split", "model=onnx", "model.path=MODELS/skip.onnx", "split.out=OUT/b", "split.parts=4"], {}),
    (["task=split", "model=onnx", "model.path=MODELS/skip.onnx", "split.out=OUT/c", "split.parts=9"], {}),
    (
        [
            "task=split",
            "model=onnx",
            "model.path=MODELS/skip.onnx",
            "split.out=OUT/d",
            "split.at=[b]",
            "cuts.max_tensors=1",
        ],
        {},
    ),
    (["task=split", "model=onnx", "model.path=MODELS/skip.onnx", "split.out=OUT/e", "split.at=[z]"], {}),
    (["task=execute"], {"FILE": "nowhere.json"}),
    (["task=compare"], {"RUN": "0"}),
]


@pytest.fixture(scope="module")
def desk(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk with models to cut."""
    made = make_desk(tmp_path_factory.mktemp("advice") / "desk")
    chain = [helper.make_node("Relu", [a], [b]) for a, b in ("xa", "ab", "by")]
    skip = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Sigmoid", ["a"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    for name, nodes in (("chain", chain), ("skip", skip)):
        onnx.save(make_model(nodes, {"x": [1, 8]}, {"y": [1, 8]}), made.folder / f"{name}.onnx")
    yield made
    made.clear()


def run(desk: Desk, *overrides: str) -> tuple[int, str]:
    task = [] if any(override.startswith("task=") for override in overrides) else ["task=cuts"]
    outcome = desk(*task, *overrides)
    return outcome.status, outcome.err


def placed(desk: Desk, overrides: list[str]) -> list[str]:
    return [each.replace("MODELS", str(desk.folder)).replace("OUT", f"{desk.folder}/out") for each in overrides]


NEXT = ("nowhere.json", "no such file", "run 0: not in")
"""What is asked next."""


@pytest.mark.parametrize(("mistake", "values"), MISTAKES, ids=[" ".join(mistake) for mistake, _ in MISTAKES])
def test_advice_that_is_followed_mends_the_complaint(mistake: list[str], values: dict[str, str], desk: Desk) -> None:
    command = placed(desk, mistake)
    status, complaint = run(desk, *command)
    assert status == 2, complaint
    assert advised(complaint), complaint
    for words in advised(complaint):
        values = dict(zip(values, placed(desk, list(values.values())), strict=True))
        status, line = run(desk, *followed(command, typed(words, values)))
        assert complaint.partition("; ")[0] not in line
        assert status != 2 or any(question in line for question in NEXT), line


NAMES = ["input:0", "/m.1/y (1) [x]", 'a="b"', "it's", "p2o.Dim.1", "é $HOME `x`", "a,b;c|d", "#1", "x=y", "*", "{n}"]


@pytest.mark.parametrize("name", NAMES)
def test_names_out_of_files_are_advised_as_a_shell_takes_them(name: str) -> None:
    inputs = [TensorSpec(name, "float", ("n", f"{name}!", 8))]
    with pytest.raises(ModelError) as error:
        concrete_shapes(inputs, {}, {}, None)
    by_dimension, by_shape = advised(str(error.value))
    for words in (by_dimension, by_shape):
        model = compose(typed(words, {"N": "5", "[...]": "[1,5,8]"})).model
        assert concrete_shapes(inputs, model.shapes, model.dims, None) == {name: [1, 5, 8]}


@pytest.mark.parametrize("name", NAMES)
def test_ranges_are_advised_as_a_shell_takes_them(name: str) -> None:
    with pytest.raises(ModelError) as error:
        input_spec(name, "float", (2,), {"low": 3})
    (words,) = advised(str(error.value))
    given = compose(typed(words, {})).model.inputs
    assert input_spec(name, "float", (2,), given[name]).high == 100


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("section", ["place.pinned", "execute.moves.load_change", "fleet.hub"])
def test_names_of_devices_are_advised_so_too(name: str, section: str) -> None:
    (word,) = typed(argument(key_of(section, name), "4"), {})
    assert keys_of(word) == [f"{section}.{name}"]
    compose([word, "execute.moves.allowed=true"])


SAMPLES = ("1", "local", "loads", "squeezenet", "[1]")
PLACEHOLDERS = re.compile(rf"(?<==|/)(\.\.\.|'\.\.\.'|[A-Z]+|{HOLE})(?=[' ]|$)")


EXAMPLES = {"model=mine", "place.split=true"} | {
    f"{key}={HOLE}" for key in ("task", "cuts", "prometheus.url", "task=head hosts.address")
}
"""Overrides that stand for a user's own options, and those that could not be tried here, or not alone."""
OF_PYTHON = {"model.place", "task.fields"}
"""What looks like a key."""


@pytest.fixture(scope="module")
def tree() -> DictConfig:
    """A composed configuration, with a sweep."""
    return compose_tree(["+sweep=loads"])


def taken(words: str, tree: DictConfig) -> bool:
    """Whether pepper takes these overrides, with one of `SAMPLES` in each place that is left open."""
    for sample in SAMPLES if PLACEHOLDERS.search(words) else ("",):
        with suppress(ConfigError, OmegaConfBaseException):
            cfg = tree.copy()
            for word in shlex.split(PLACEHOLDERS.sub(sample, words)):
                key, _, value = word.lstrip("+").partition("=")
                if not (group := config.conf_dir() / key).is_dir():
                    assign(cfg, key, yaml.safe_load(value))
                elif not (group / f"{value}.yaml").is_file():
                    raise ConfigError(f"{word}: no such option")
            config.typed(cfg)
            return True
    return False


def test_whatever_override_a_message_names_is_one(tree: DictConfig) -> None:
    """Also of those that the tests do not provoke: the key is there, and takes such a value."""
    found = {words: message.place for message in messages() for words in advised(message.text) if words not in EXAMPLES}
    open_keys = [words for words in found if HOLE in PLACEHOLDERS.sub("", words)]
    assert len(open_keys) < len(found) / 10
    wrong = [f"{place}: {words}" for words, place in found.items() if words not in open_keys and not taken(words, tree)]
    assert wrong == [], "\n".join(wrong)


def test_whatever_key_a_message_names_is_one(tree: DictConfig) -> None:
    found = {key: message.place for message in messages() if " " in message.text for key in keys(message.text)}
    assert len(found) > 40
    wrong = [f"{place}: {key}" for key, place in found.items() if key not in OF_PYTHON and not is_key(key, tree)]
    assert wrong == [], "\n".join(wrong)


def is_key(key: str, tree: DictConfig) -> bool:
    """Whether there is such a key; what stands behind some is open."""
    key = key.replace("fleet.devices.NAME", "fleet.devices.server")
    section, _, name = key.rpartition(".")
    node = OmegaConf.select(tree, section) if section else tree
    return config.OPEN_KEYS.match(key) is not None or (OmegaConf.is_dict(node) and name in node)
