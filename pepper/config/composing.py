"""From overrides to a checked configuration, without a command line; and what is wrong with them, in one line."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, get_type_hints

from pepper import config
from pepper.config import PepperConfig
from pepper.config.checks import not_one_of
from pepper.config.overrides import entries, keys_of, prepared, several_values, unreadable
from pepper.errors import ConfigError, argument, nearest

if TYPE_CHECKING:
    from omegaconf import DictConfig


_WRONG_TYPE = (
    re.compile(r"Value '(?P<value>.*)' (?:of type '.*' could not be converted to|is not a valid) (?P<wanted>\w+)"),
    re.compile(r"Cannot convert '.*' to (?P<wanted>string): '(?P<value>.*)'"),
    re.compile(r"Invalid value '(?P<value>.*)', expected (?P<wanted>one) of"),
    re.compile(r"Value (?P<value>.*) \(\w+\) is not a valid input for <(?P<wanted>enum)"),
)
_NO_GROUP = re.compile(r"Could not override '(?P<key>.*?)'.*list use (?P<add>\+\S+)", re.S)
_SEVERAL = re.compile(r"Ambiguous value for argument '(?P<override>.*?)'\s", re.S)
_CHOICES = re.compile(r"expected one of \[(.*)\]")
_NO_MAPPING = re.compile(r"Cannot (?:assign \w+ to Dict\[|merge DictConfig with ListConfig)")
_GROUP_TWICE = re.compile(r"Multiple values for (?P<group>\w+)\.")
_KINDS = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "text"}
"""By how OmegaConf's name for the type begins."""


@dataclass(frozen=True)
class Composition:
    """A configuration, and what it was composed from: other options can be composed in its place.

    Attributes:
        config: The whole configuration.
        overrides: The overrides that made it, as the command line has them.
        compose: Makes Hydra's tree of overrides, its values not checked yet.
    """

    config: PepperConfig
    overrides: tuple[str, ...]
    compose: "Callable[[Sequence[str]], DictConfig]"

    def anew(self, overrides: Sequence[str]) -> "Composition":
        """Return what other overrides make.

        Raises:
            ConfigError: An override cannot be read, or names no such group, option or key, or a value does not fit.
        """
        return Composition(config.typed(self.compose(overrides)), tuple(overrides), self.compose)


def compose(overrides: Sequence[str] = ()) -> PepperConfig:
    """Return the configuration that these command-line overrides make, such as ``device=share50``.

    Raises:
        ConfigError: An override cannot be read, or names no such group, option or key, or a value does not fit.
    """
    from omegaconf.errors import OmegaConfBaseException

    try:
        return config.typed(compose_tree(overrides))
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error, overrides)) from error


def compose_tree(overrides: Sequence[str]) -> "DictConfig":
    """Return the same as Hydra's tree, its values not checked yet.

    Raises:
        ConfigError: An override cannot be read, or names no such group, option or key.
    """
    import hydra

    config.register()
    with hydra.initialize_config_dir(str(config.conf_dir()), version_base="1.3"):
        return recompose(overrides)


def recompose(overrides: Sequence[str]) -> "DictConfig":
    """Return what these overrides make of the tree that the running command was composed from.

    Raises:
        ConfigError: As above.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        readable, named = prepared(overrides)
        return with_names(hydra.compose("run", overrides=readable), named)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, overrides)) from error


def own_folders() -> list[str]:
    """Return the folders of the user's own options (``--config-dir``) that the running command was composed with."""
    from hydra.core.hydra_config import HydraConfig

    sources = HydraConfig.get().runtime.config_sources
    return [source.path for source in sources if source.provider == "command-line"]


def with_names(cfg: "DictConfig", named: Sequence[str]) -> "DictConfig":
    """Set what overrides with names of their own say in a composed tree, and return it.

    Raises:
        ConfigError: An override cannot be read.
        omegaconf.errors.OmegaConfBaseException: A value is of another type.
    """
    for override in named:
        for entry in entries(override) or ():
            entry.apply(cfg)
    return cfg


def _whole_key(end: str, overrides: Sequence[str]) -> str:
    """Return the key of the override that an error is about, of which it may know the end only."""
    given = [key for override in overrides if "=" in override for key in keys_of(override)]
    return next((key for key in given if end and f".{key}".endswith(f".{end}")), end)


def _no_group(key: str, add: str) -> str:
    """Say that a group cannot be chosen so: a sweep is added, the others have an option already."""
    return f"{key}: there is none yet; give {add}" if key == "sweep" else f"{key}: no such group"


def explain(error: Exception, overrides: Sequence[str] = ()) -> str:
    """Say in one line what is wrong with the command line or an option file, and the fix.

    Args:
        error: What Hydra or OmegaConf raised.
        overrides: The command line's, which tell the whole key where the error has the end of it only.
    """
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, OverrideParseException):
        return unreadable(str(error.override).removeprefix("++"))
    if found := _NO_GROUP.match(str(error)):
        return _no_group(found["key"], found["add"])
    if found := _SEVERAL.search(str(error)):
        return several_values(found["override"])
    if found := _GROUP_TWICE.match(str(error)):
        return f"+{found['group']}: has an option already; give {found['group']}=OPTION"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        options = error.options or []
        return f"{group}={option}: no such option{nearest(option, options)} (options: {', '.join(options)})"
    cause: Any = error.__cause__ or error
    if isinstance(cause, HydraException) and isinstance(cause.__context__, OmegaConfBaseException):
        cause = cause.__context__  # what an option file says
    key = _whole_key(str(getattr(cause, "full_key", None) or ""), overrides)
    lines = [line.strip() for line in str(cause).splitlines()]
    message = next((line for line in lines if not line.startswith(("full_key", "object_type"))), "")
    if key:
        schema = getattr(cause, "parent_node", None)
        known = [str(name) for name in schema or ()] if OmegaConf.is_dict(schema) else []
        name = str(key).rpartition(".")[2]
        hint = nearest(name, known) if name not in known else ""
        listed = f" (keys: {', '.join(known)})" if name not in known and known and not hint else ""
        if _NO_MAPPING.match(message):
            return f"{key}: must be values by name; give {key}.NAME=..."
        if "is not a ListConfig" in message:
            return f"{key}: must be a list; give {argument(str(key), '[...]')}"
        if "is not Optional" in message:
            return f"{key}=null: must have a value"
        for wrong in filter(None, (pattern.match(message) for pattern in _WRONG_TYPE)):
            said = _CHOICES.search(message)  # also of the items of a list
            if choices := said[1].split(", ") if said else _choices(schema, name):
                return not_one_of(key, wrong["value"], choices)
            wanted = wrong["wanted"].lower()
            kind = next((kind for name, kind in _KINDS.items() if wanted.startswith(name)), wanted)
            return f"{key}={wrong['value']}: must be {kind}"
        return f"{key}: {message}{hint}{listed}"
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())


def _choices(schema: "DictConfig | None", name: str) -> list[str]:
    """Return what a key may be, where that is one of a few."""
    from omegaconf import OmegaConf

    kind = None if schema is None else get_type_hints(OmegaConf.get_type(schema) or object).get(name)
    return [choice.value for choice in kind] if isinstance(kind, type) and issubclass(kind, Enum) else []
