"""The form of an alias: a name that people move from version to version."""

import re

# Small letters, digits, dots, dashes and underscores, a letter first; v and a number name a version already.
ALIAS_PATTERN = r"(?!v[0-9]+$)[a-z][a-z0-9_.-]{0,63}"
RESERVED = ("head", "base")  # they name versions already


def may_be_alias(name: str) -> bool:
    """Whether a text has the form of an alias. A reserved name has it too."""
    return re.fullmatch(ALIAS_PATTERN, name) is not None
