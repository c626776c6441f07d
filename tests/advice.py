"""What pepper's messages advise people to type: found in its sources, and in a message that it gave."""

import ast
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness import ROOT

from pepper import config
from pepper.config.executing import RENAMED
from pepper.config.overrides import keys_of

HOLE = "\N{REPLACEMENT CHARACTER}"
"""What a message puts in, in its source."""
KEYS = "|".join(sorted(vars(config.PepperConfig)["__annotations__"]))
WORD = re.compile(
    rf"(?<![\w.'=/-])(?:'[+~]*(?:{KEYS})[.=](?:[^']|'\"'\"')*'"
    rf"|[+~]*(?:{KEYS})(?:\.(?:[^\s=;:'\"(){{}}]|:(?=\S))+)*=(?:\[[^\]]*\]|'[^']*'|(?:[^\s,;:()\[\]'`]|:(?=\S))+))"
)
"""An override as a shell takes it: in quotes or without."""


@dataclass(frozen=True)
class Message:
    """A text in pepper's sources.

    Attributes:
        place: Its file and line.
        text: What it says, with a `HOLE` for each value.
    """

    place: str
    text: str

    def matches(self, said: str) -> bool:
        """Whether this may be a piece of what was said."""
        return re.search(".*?".join(map(re.escape, self.text.split(HOLE))), said, re.DOTALL) is not None


def messages() -> Iterator[Message]:
    """The texts of all modules, docstrings apart, each with the pieces that it is concatenated of."""
    for file in sorted((ROOT / "pepper").rglob("*.py")):
        tree = ast.parse(file.read_text())
        apart = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                apart |= {id(value) for value in node.values}
        for node in ast.walk(tree):
            if id(node) not in apart and (text := _text(node)):
                yield Message(f"{file.relative_to(ROOT)}:{node.lineno}", text)


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value) or HOLE for value in node.values)
    return ""


def advised(text: str) -> list[str]:
    """What a message advises: the overrides behind its subject, those that go together in one string."""
    behind = text.partition("; ")[2] or text.removeprefix("error: ").partition(": ")[2] or text
    found = list(WORD.finditer(behind))
    together: list[str] = []
    for before, match in zip([None, *found], found, strict=False):
        if before is not None and behind[before.end() : match.start()] == " ":
            together[-1] += f" {match[0]}"
        else:
            together.append(match[0])
    return together


def keys(text: str) -> list[str]:
    """The keys that a message names, with or without a value."""
    return re.findall(rf"(?<![\w./-])(?:{KEYS})(?:\.\w+)+(?![\w./]*\w*[({HOLE}])(?!\w*\.\w)", text)


def typed(words: str, values: Mapping[str, str]) -> list[str]:
    """What a shell hands over where somebody pastes this, with values in place of ``...``, ``N`` or ``NAME``."""
    for placeholder, value in values.items():
        words = re.sub(rf"(?<==|/){re.escape(placeholder)}(?=['\s]|$)", lambda _, value=value: value, words)
    done = subprocess.run(["bash", "-c", rf"printf '%s\0' {words}"], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def followed(command: Sequence[str], words: Sequence[str]) -> list[str]:
    """The command with the advised overrides, in place of those that set the same keys."""
    given = [key for word in words for key in keys_of(word)]
    given += [old for old, new in RENAMED.items() if any(f"{key}.".startswith(f"{new}.") for key in given)]
    kept = [
        override
        for override in command
        if not any(f"{key}.".startswith(f"{other}.") for key in keys_of(override) for other in given)
    ]
    return [*kept, *words]
