"""YAML 1.2 as recipes and plans hold it: read within limits, whatever the text is, and written."""

import errno
import re
from collections.abc import Hashable
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from halonet.errors import UserError
from halonet.rules import shown

# Our longest file has 200 lines. PyYAML takes a second for every 100,000 letters.
MOST_LETTERS = 200_000
DEEPEST = 32  # sections within sections
MOST_VALUES = 20_000  # with every alias written out


def read_text(path: Traversable, what: str) -> str:
    """Read a short text file.

    Args:
        path: The file.
        what: What to call it in messages, such as "recipe mine.yaml".

    Raises:
        UserError: It is no file, is too long, or is not UTF-8.
    """
    try:
        if not (path.is_file() or path.is_dir()) and isinstance(path, Path) and path.exists():
            raise OSError(errno.EINVAL, "it is neither a file nor a folder")  # a pipe would keep us waiting
        with path.open("rb") as file:
            content = file.read(4 * MOST_LETTERS + 1)
        _check_length(content, what, 4 * MOST_LETTERS)
        text = content.decode()
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {what}: byte {error.start} is not UTF-8; save it as UTF-8") from error
    except (OSError, ValueError) as error:  # a ValueError is of a path that holds NUL
        raise UserError(f"cannot read {what}: {getattr(error, 'strerror', None) or error}") from error
    _check_length(text, what)
    return text


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """Read YAML that holds keys.

    Args:
        text: The YAML.
        source: What to call it in messages.

    Raises:
        UserError: It is not valid YAML, holds no keys or one of them twice, or is longer, deeper or, with its aliases
            written out, larger than any recipe is.
    """
    _check_length(text, source)
    values = _load(text, f"{source} is not valid YAML")
    if not isinstance(values, dict):
        raise UserError(f"{source} holds no keys: it must be YAML of the form KEY: VALUE")
    return values


def parse_value(text: str, key: str) -> Any:
    """Read the YAML of one value; raises UserError, naming the key, for anything else."""
    _check_length(text, key)
    return _load(text, f"{key}: {shown(text)} is not a value")


def dump_yaml(values: dict[str, Any]) -> str:
    """Write what `parse_yaml` reads, lists on one line."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """PyYAML reads 1e-4 as text, as YAML 1.1 said; YAML 1.2 reads a number, and so does everybody else."""

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
        raise UserError(f"{source} has over {MOST_LETTERS:,} letters: no recipe is so long")


def _load(text: str, complaint: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except Exception as error:  # PyYAML's constructors raise whatever an odd number, date or tag makes them raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{complaint}: {reason}") from error


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Count the values below a node, every alias written out, and how deep they lie."""
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
    measures = [_measure(child, known) for child in children]
    count, depth = 1 + sum(each[0] for each in measures), 1 + max((each[1] for each in measures), default=0)
    if count > MOST_VALUES or depth > DEEPEST:
        message = f"its aliases written out, it has over {MOST_VALUES:,} values or is nested over {DEEPEST} deep"
        raise ComposerError(None, None, message, node.start_mark)
    known[id(node)] = count, depth
    return count, depth
