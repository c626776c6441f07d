"""Option files of the user's own, looked at before anything composes them."""

from collections.abc import Iterable
from pathlib import Path

import yaml

from pepper.errors import ConfigError

MOST_BYTES = 1 << 20
MOST_NODES = 100_000  # aliases expanded: a file of a few lines can stand for billions
MOST_DEPTH = 100
MOST_DIGITS = 400  # beyond any float
_TAGS = {
    f"tag:yaml.org,2002:{kind}"
    for kind in ("str", "int", "float", "bool", "null", "seq", "map", "merge", "timestamp", "value")
}
"""Of what is written without a tag; a moment is taken for the text that it is."""


def check_option_files(folder: Path, groups: Iterable[str]) -> None:
    """Make sure that a folder's option files can be composed.

    Args:
        folder: What ``--config-dir`` names.
        groups: The configuration's groups; files elsewhere are none of pepper's.

    Raises:
        ConfigError: A file cannot be read, is no YAML, says a key twice, or expands to too much.
    """
    for file in sorted(file for group in groups for file in (folder / group).glob("*.yaml") if not file.is_dir()):
        _check(file)


def _check(file: Path) -> None:
    try:
        if not file.is_file():
            raise ValueError("is no regular file")
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"holds more than {MOST_BYTES >> 20} MiB")
        root = yaml.compose(content.decode(), Loader=yaml.SafeLoader)
        _ComposedSize().of(root, MOST_DEPTH)
        _check_defaults(root)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}, line {line}: is no UTF-8 text; save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        hint = "; indent with spaces" if "\\t" in str(error.problem) else ""
        raise ConfigError(f"{file}{place}: is no YAML: {error.problem}{hint}") from error
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split()) if isinstance(error, yaml.YAMLError) else "nested too deep"
        raise ConfigError(f"{file}: is no YAML: {reason}") from error
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from error


def _check_defaults(root: yaml.Node | None) -> None:
    """Make sure that a file's list of defaults is one that Hydra can read.

    Raises:
        ValueError: It is not.
    """
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    for node in (value for key, value in pairs if isinstance(key, yaml.ScalarNode) and key.value == "defaults"):
        entries = node.value if isinstance(node, yaml.SequenceNode) else [None]
        for entry in entries:
            parts = (entry,)
            if isinstance(entry, yaml.MappingNode) and len(entry.value) == 1:
                parts = entry.value[0]
            if not all(isinstance(part, yaml.ScalarNode) for part in parts):
                raise ValueError(f"line {node.start_mark.line + 1}: defaults must be a list of NAME or GROUP: NAME")


class _ComposedSize:
    """How many nodes a document has once its aliases are expanded; each node is looked at once."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}

    def of(self, node: yaml.Node | None, levels: int) -> int:
        """Return the size of a node with all below it.

        Raises:
            ValueError: It is too large or too deep, or a key stands in it twice.
        """
        if node is None:
            return 0
        if id(node) in self._known:
            return self._known[id(node)]
        if not levels:
            raise ValueError(f"is nested deeper than {MOST_DEPTH} levels, or in a circle")
        if node.tag not in _TAGS:
            raise ValueError(f"line {node.start_mark.line + 1}: no value has the tag {node.tag[:80]!r} here")
        size = 1
        if (
            isinstance(node, yaml.ScalarNode)
            and node.tag.endswith((":int", ":float"))
            and len(node.value) > MOST_DIGITS
        ):
            raise ValueError(f"line {node.start_mark.line + 1}: a number of {len(node.value)} digits")
        if isinstance(node, yaml.SequenceNode):
            size += sum(self.of(item, levels - 1) for item in node.value)
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    raise ValueError(f"line {key.start_mark.line + 1}: {key.value!r} stands here twice")
                seen.add(str(key.value))
                size += self.of(key, levels - 1) + self.of(value, levels - 1)
        if size > MOST_NODES:
            raise ValueError(f"its aliases expand to more than {MOST_NODES:,} values; write out what is needed")
        self._known[id(node)] = size
        return size
