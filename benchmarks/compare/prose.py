"""Structure and prose of a document, apart. A change of structure is a difference between revisions; a reworded text is not."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PROSE_FIELDS = frozenset({"description", "summary", "title", "detail", "message"})
EXAMPLE_FIELDS = frozenset({"example", "examples"})
SETTING = re.compile(r"^\| `(\w+)` \| (.*?) \| (.*) \|$")
# A command's row in a help text begins at the left edge of the panel. The rest of a long summary is further right.
COMMAND = re.compile(r"^│ ([a-z][a-z0-9-]*) ", re.MULTILINE)
COMMAND_PANEL = re.compile(r"╭─ Commands ─.*?╰", re.DOTALL)
OPTION = re.compile(r"^│ \*? {0,6}(--?[a-z][\w-]*(?:[, ]+--?[a-z][\w-]*)*)\s+(<[^>]*>)?", re.MULTILINE)
USAGE = re.compile(r"^ *Usage: .*$", re.MULTILINE)


@dataclass(frozen=True)
class Document:
    """What programs depend on, and what people read, both as lines."""

    structure: str
    prose: str = ""


def split_json(value: Any) -> Document:
    """A value of JSON. Prose are the strings of the fields `PROSE_FIELDS`, and all strings of an example."""
    prose: list[str] = []
    structure = _without_prose(value, "", prose, in_example=False)
    return Document(json.dumps(structure, indent=1, sort_keys=True), "\n".join(prose))


def split_settings(text: str) -> Document:
    """The table of settings. Names and defaults are structure."""
    structure, prose = [], []
    for line in text.splitlines():
        row = SETTING.match(line)
        if row:
            structure.append(f"{row[1]} = {row[2]}")
        prose.append(f"{row[1]}: {row[3]}" if row else line)
    return Document("\n".join(structure), "\n".join(prose))


def split_help(text: str) -> Document:
    """A help text. The usage, the options with their types, and the commands are structure."""
    options = [" ".join(match.group().strip("│ *").split()) for match in OPTION.finditer(text)]
    usage = [" ".join(line.split()) for line in USAGE.findall(text)]
    return Document("\n".join([*usage, *options, *list_commands(text)]), "\n".join(_plain_lines(text)))


def list_commands(text: str) -> list[str]:
    """The commands that a help text lists."""
    panel = COMMAND_PANEL.search(text)
    return COMMAND.findall(panel.group()) if panel else []


def _plain_lines(text: str) -> Iterator[str]:
    """The lines of a help text without frames and alignment, which follow the longest name."""
    for line in text.splitlines():
        words = line.strip(" │╭╮╰╯─").split()
        if words:
            yield " ".join(words)


def _without_prose(value: Any, path: str, prose: list[str], *, in_example: bool) -> Any:
    """The value with an ellipsis for each text of prose. The texts are added to `prose`, each with its path."""
    if isinstance(value, str) and (in_example or path.rpartition(".")[2] in PROSE_FIELDS):
        prose.append(f"{path}: {value}")
        return "…"
    if isinstance(value, list):
        return [_without_prose(item, f"{path}[]", prose, in_example=in_example) for item in value]
    if isinstance(value, dict):
        # Under `properties` a name is that of a field of the API, and no word of OpenAPI.
        is_field = path.endswith(".properties")
        return {
            name: _without_prose(
                inner, f"{path}.{name}", prose, in_example=in_example or (name in EXAMPLE_FIELDS and not is_field)
            )
            for name, inner in value.items()
        }
    return value
