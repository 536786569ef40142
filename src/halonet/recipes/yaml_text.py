"""Reads and writes YAML 1.2; input is limited in size, so that any text can be read safely."""

import errno
import re
from collections.abc import Hashable
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from halonet.complaints import shown
from halonet.errors import UserError

# Our longest file has 200 lines. PyYAML takes a second for every 100,000 letters.
MOST_LETTERS = 200_000
DEEPEST = 32  # nested sections
MOST_VALUES = 20_000  # with all aliases expanded


def read_text(path: Traversable, what: str) -> str:
    """Read a short text file, called `what` in messages, such as "recipe mine.yaml".

    Raises:
        UserError: It is not a file, is too long, or is not UTF-8.
    """
    try:
        if not (path.is_file() or path.is_dir()) and isinstance(path, Path) and path.exists():
            raise OSError(errno.EINVAL, "it is neither a file nor a folder")  # reading a pipe could block
        with path.open("rb") as file:
            content = file.read(4 * MOST_LETTERS + 1)
        _check_length(content, what, 4 * MOST_LETTERS)
        text = content.decode()
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {what}: byte {error.start} is not UTF-8; save it as UTF-8") from error
    except (OSError, ValueError) as error:  # a ValueError if the path holds NUL
        raise UserError(f"cannot read {what}: {getattr(error, 'strerror', None) or error}") from error
    _check_length(text, what)
    return text


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """Read YAML that holds keys; messages call it `source`.

    Raises:
        UserError: It is not valid YAML, holds no keys or a key twice, or is longer, deeper or, with aliases expanded,
            larger than any recipe.
    """
    _check_length(text, source)
    values = _load(text, f"{source} is not valid YAML")
    if not isinstance(values, dict):
        raise UserError(f"{source} holds no keys: it must be YAML of the form KEY: VALUE")
    return values


def parse_value(text: str, key: str) -> Any:
    """Read a single value as YAML.

    Raises:
        UserError: The text is not a value; the message names the key.
    """
    _check_length(text, key)
    return _load(text, f"{key}: {shown(text)} is not a value")


def dump_yaml(values: dict[str, Any]) -> str:
    """Write what `parse_yaml` reads, lists on one line."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """PyYAML reads 1e-4 as text, as in YAML 1.1; this reads a number, as in YAML 1.2 and everywhere else."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > DEEPEST:
            message = f"it is nested over {DEEPEST} deep"
            raise ComposerError(None, None, message, self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _measure(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                raise ConstructorError(None, None, f"key {shown(key.value)} stands there twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


class _Dumper(yaml.SafeDumper):
    """Writes lists on one line."""


_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)


def _check_length(text: str | bytes, source: str, most: int = MOST_LETTERS) -> None:
    if len(text) > most:
        raise UserError(f"{source} has over {MOST_LETTERS:,} letters: no recipe is that long")


def _load(text: str, complaint: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except Exception as error:  # PyYAML raises all kinds of errors for odd numbers, dates and tags
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{complaint}: {reason}") from error


class _Size(NamedTuple):
    """The number of values in a node, and how deeply they are nested."""

    values: int
    depth: int


def _measure(node: yaml.Node, known: dict[int, _Size | None]) -> _Size:
    """Measure a node with all aliases expanded."""
    if id(node) in known:
        measured = known[id(node)]
        if measured is None:
            raise ComposerError(None, None, "an alias stands for what holds it", node.start_mark)
        return measured
    known[id(node)] = None
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [each for pair in node.value for each in pair]
    sizes = [_measure(child, known) for child in children]
    size = _Size(1 + sum(each.values for each in sizes), 1 + max((each.depth for each in sizes), default=0))
    if size.values > MOST_VALUES or size.depth > DEEPEST:
        message = f"its aliases written out, it has over {MOST_VALUES:,} values or is nested over {DEEPEST} deep"
        raise ComposerError(None, None, message, node.start_mark)
    known[id(node)] = size
    return size
