"""Overrides before Hydra reads them: names out of files and plain text, which its grammar does not take as they are.

Models name their inputs ``input:0`` or ``/m/y``, their dimensions ``p2o.DynamicDimension.1``; files lie in folders with
spaces and brackets. So everything between ``model.shapes.`` and the first ``=`` is a name (a quoted one may hold ``=``
too), and everything behind the ``=`` of a key that takes text is text.
"""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from pepper import config
from pepper.config.executing import RENAMED
from pepper.errors import ConfigError, argument, key_of

if TYPE_CHECKING:
    from omegaconf import DictConfig

_OF_FLEET = ("fleet.hub", "fleet.links")
NAMED = (
    *("model.shapes", "model.dims", "model.inputs", "place.pinned", "place.rates", "place.priorities"),
    *("execute.moves.load_change", "sweep.axes"),
    *_OF_FLEET,
)
"""What holds values by names that are not pepper's."""

_SECTION = re.compile(rf"(?P<sign>~|\+{{0,2}})(?P<section>{'|'.join(map(re.escape, NAMED))})(?P<rest>[.=].*)", re.S)
_NAME = re.compile(r"""\.(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<plain>[^=]*))(?:=(?P<value>.*))?""", re.S)
_SIMPLE = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
_TEXT = re.compile(r"(?P<key>\+{0,2}[\w.]+)=(?P<text>.+)", re.S)
_NO_NAME = re.compile(r"true|false|nan|[+-]?(?:inf|[\d.][\w.+-]*)|[\[{].*", re.I | re.S | re.ASCII)
"""What Hydra reads as a truth value, a number, a list or a mapping."""
_LIST = re.compile(r"\[(.+)\]", re.S)
_SWEEP, _OF_SWEEP = re.compile(r"\+{0,2}sweep="), re.compile(r"[~+]{0,2}sweep\.\w")
_UNTOUCHED = re.compile(
    r"null|\?\?\?|.*\$\{.*|'.*'|\".*\"|(?!(?:true|false|nan|inf)$)[a-z_./][\w./-]*", re.I | re.S | re.ASCII
)
"""Text that Hydra reads as it is meant: nothing, nothing yet, another key's value, quoted or plain."""


@dataclass(frozen=True)
class Entry:
    """A value by a name that is not pepper's.

    Attributes:
        section: What it belongs to, one of `NAMED`.
        name: The name.
        value: The value.
        dropped: Whether the entry is taken away instead.
    """

    section: str
    name: str
    value: Any = None
    dropped: bool = False

    def apply(self, cfg: "DictConfig") -> None:
        """Set it in a composed configuration, whose schema checks its type.

        Raises:
            ConfigError: There is no sweep whose axes could be set.
        """
        from omegaconf import OmegaConf, open_dict

        node = OmegaConf.select(cfg, self.section)
        if node is None:
            raise ConfigError(f"{key_of(self.section, self.name)}: there is no sweep; give +sweep=NAME too")
        with open_dict(node):
            if self.dropped:
                node.pop(self.name, None)
            else:
                node[self.name] = self.value


MOST_LETTERS = 20_000
"""Of all overrides together: Hydra's parser takes about a second for as many."""


def prepared(overrides: Sequence[str], multirun: bool = False) -> tuple[list[str], list[str]]:
    """Tell overrides that Hydra reads, put so that it reads what is meant, from those with names of their own.

    Args:
        overrides: The command line's overrides, or all of its arguments.
        multirun: Whether commas separate several values, as Hydra's ``-m`` has it.

    Raises:
        ConfigError: One has an old name, holds no name or no value, or sets a sweep's key though there is no sweep; or
            they are too long to be read in good time.
    """
    letters = sum(map(len, overrides))
    if letters > MOST_LETTERS:
        longest = max(overrides, key=len)[:40]
        raise ConfigError(f"{longest}...: {letters} letters of overrides; put values as long into an option file")
    lone = next((override for override in overrides if _OF_SWEEP.match(override)), None)
    if lone is not None and not any(_SWEEP.match(override) for override in overrides):
        raise ConfigError(f"{lone.partition('=')[0].lstrip('~+')}: there is no sweep; give +sweep=NAME too")
    for override in overrides:
        _check_name(override)
    read = [(override, entries(override, multirun)) for override in overrides]
    return (
        [_written(_imported(override), multirun) for override, found in read if found is None],
        [override for override, found in read if found is not None],
    )


def _imported(override: str) -> str:
    """Name the section of ``task=import`` as the schema does: Python takes a word of its own for no field's name."""
    return f"imports.{override.removeprefix('import.')}" if override.startswith("import.") else override


def _check_name(override: str) -> None:
    """Refuse a key by a name that it no longer has."""
    key = override.partition("=")[0].lstrip("~+")
    old = next((old for old in RENAMED if key == old or key.startswith(f"{old}.")), None)
    if old is not None and "=" in override:
        new = RENAMED[old] + key.removeprefix(old)
        raise ConfigError(f"{key}: is now called {new}; give {argument(new, override.partition('=')[2])}")


def entries(override: str, multirun: bool = False) -> list[Entry] | None:
    """Return what an override with names of its own sets; None for one that Hydra reads.

    Raises:
        ConfigError: It holds no name or no value.
    """
    found = _SECTION.fullmatch(override)
    if found is None:
        return None
    section, rest = found["section"], found["rest"]
    if rest.startswith("="):
        value = None if _hydra_reads(override) else _yaml(rest[1:])
        return [Entry(section, str(name), item) for name, item in value.items()] if isinstance(value, dict) else None
    if (named := _NAME.fullmatch(rest)) is None:
        raise ConfigError(f"{override}: a quoted name must end before the '='; give '{section}.\"NAME\"=VALUE'")
    name = next(group for group in (named["double"], named["single"], named["plain"]) if group is not None)
    if named["plain"] and _SIMPLE.fullmatch(name) and (multirun or section != "model.inputs"):
        return None
    if section in _OF_FLEET and _hydra_reads(override):  # a device's name may be followed by a key of its link
        return None
    if found["sign"] == "~":
        return [Entry(section, name, dropped=True)]
    if not name or named["value"] is None:
        raise ConfigError(f"{override}: not a KEY=VALUE; give {section}.NAME=VALUE")
    return [Entry(section, name, _value(override, section, named["value"]))]


def unreadable(override: str) -> str:
    """Say that an override cannot be read, and what to look at."""
    key = override.partition("=")[0].lstrip("+~")
    if key in _keys_of(_is_list_of_texts) and "=[" not in override:
        return f"{override}: must be a list; give {key}=[...]"
    section = next((each for each in NAMED if key.startswith(f"{each}.")), None)
    fix = "quote the value or check its brackets"
    if section is not None and override.count("=") > 1:
        fix += f", and write a name that holds '=' as '{section}.\"NAME\"=VALUE'"
    return f"{override}: not a KEY=VALUE that can be read; {fix}"


def several_values(override: str) -> str:
    """Say what to do about values with commas between them."""
    key, _, values = override.partition("=")
    fix = f"give {argument(key, f'[{values}]')}" if key in _keys_of(_is_list) else "add -m to run once for each"
    return f"{override}: several values; {fix}"


def keys_of(override: str) -> list[str]:
    """Return the keys that an override sets, names out of files as they are."""
    named = entries(override)
    return [override.lstrip("+~").split("=", 1)[0]] if named is None else [f"{e.section}.{e.name}" for e in named]


def assign(cfg: "DictConfig", key: str, value: Any) -> None:
    """Set a key of a composed configuration; behind those of `NAMED` stands a name.

    Raises:
        omegaconf.errors.OmegaConfBaseException: There is no such key, or it takes no such value.
    """
    from omegaconf import OmegaConf

    for section in NAMED:
        if key.startswith(f"{section}."):
            Entry(section, key.removeprefix(f"{section}."), value).apply(cfg)
            return
    OmegaConf.update(cfg, key, value, force_add=config.OPEN_KEYS.match(f"{key}=") is not None)


def _written(override: str, multirun: bool) -> str:
    """Return an override as Hydra reads what is meant: new names behind open keys, text as it stands."""
    if config.OPEN_KEYS.match(override):
        return f"++{override}"
    found = _TEXT.fullmatch(override)
    if found is None:
        return override
    key, text = found["key"].lstrip("+"), found["text"]
    if key in _groups() and _NO_NAME.fullmatch(text):
        return f"{found['key']}='{text}'"  # as the name of an option that is not there
    if key in _keys_of(_is_list_of_texts) and (texts := _LIST.fullmatch(text)) and not _hydra_reads(override):
        return f"{found['key']}=[{','.join(_quoted(each.strip()) for each in texts[1].split(','))}]"
    if key not in _keys_of(_is_text) or _UNTOUCHED.fullmatch(text) or (multirun and "," in text):
        return override
    return f"{found['key']}={_quoted(text)}"


def _quoted(text: str) -> str:
    """Return text as Hydra reads it as it stands; in quotes it is left."""
    from hydra.core.override_parser.types import Quote, QuotedString

    if text[:1] == text[-1:] and text[:1] in ("'", '"') and len(text) > 1:
        return text
    return QuotedString(text, Quote.double if "'" in text else Quote.single).with_quotes()


@functools.cache
def _groups() -> frozenset[str]:
    """The groups of options."""
    return frozenset(path.name for path in config.conf_dir().iterdir() if path.is_dir())


def _is_text(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, str)


def _is_list_of_texts(kind: Any) -> bool:
    return bool(kind == list[str])


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is list


@functools.cache
def _keys_of(wanted: Callable[[Any], bool]) -> frozenset[str]:
    """The keys whose values are of a wanted type."""
    return frozenset(_keys_below(config.PepperConfig, "", wanted))


def _keys_below(schema: type, prefix: str, wanted: Callable[[Any], bool]) -> list[str]:
    keys = []
    for name, hint in get_type_hints(schema).items():
        kinds = set(get_args(hint)) - {NoneType} if get_origin(hint) is UnionType else {hint}
        for kind in kinds:
            if isinstance(kind, type) and is_dataclass(kind):
                keys += _keys_below(kind, f"{prefix}{name}.", wanted)
        if all(map(wanted, kinds)):
            keys.append(prefix + name)
    return keys


def _value(override: str, section: str, written: str) -> Any:
    """Return the value behind a name, as Hydra writes values; an input's may be any text, too."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(f"value={written}")
        if not parsed.is_sweep_override():
            return parsed.value()
    except HydraException:
        pass
    if section == "model.inputs":
        return written
    raise ConfigError(unreadable(override))


def _hydra_reads(override: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def _yaml(text: str) -> Any:
    """Return what YAML makes of a value with quoted names, such as ``{"input:0": [1, 5, 8]}``; None if nothing."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None
