"""Every setting in tables: the output of `errata settings`, and the page docs/settings.md."""

from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from service.settings import DELIMITER, PREFIX, Settings

_HEAD = """# Settings

Each setting is an environment variable; those of `errata serve --help` are options too. An unknown name is refused at start. An
empty default means: chosen by the model's family and size, or not used. `errata settings` prints this page.
"""


def markdown() -> str:
    """The whole page: one table of the settings without a group, and one table a group."""
    top = {name: field for name, field in Settings.model_fields.items() if _group_of(field) is None}
    parts = [_HEAD, _table(top, PREFIX)]
    for name, field in Settings.model_fields.items():
        group = _group_of(field)
        if group is not None:
            summary = " ".join((group.__doc__ or "").split())
            parts += [f"## {name}\n\n{summary}\n", _table(group.model_fields, f"{PREFIX}{name.upper()}{DELIMITER}")]
    return "\n".join(parts)


def _group_of(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _table(fields: dict[str, FieldInfo], prefix: str) -> str:
    return "\n".join(["| variable | default | is |", "|---|---|---|", *_rows(fields, prefix)]) + "\n"


def _rows(fields: dict[str, FieldInfo], prefix: str) -> Iterator[str]:
    for name, field in fields.items():
        default = "" if field.default is None or field.default == () else f"`{field.default}`"
        description = (field.description or "").replace("|", "\\|")
        yield f"| `{prefix}{name.upper()}` | {default} | {description} |"
