"""A chat template as the program that it is: its tokens, without comments and without white space that is no output.

Templates of the same tokens compile to the same program, so they render every conversation alike.
"""

from jinja2 import Environment, TemplateSyntaxError

# As transformers reads templates: these two decide which white space is output.
ENVIRONMENT = Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
DATA = "data"
DROPPED = frozenset({"comment_begin", "comment", "comment_end", "whitespace", "raw_begin", "raw_end"})
MARKS = frozenset({"block_begin", "block_end", "variable_begin", "variable_end"})  # a dash in them is in the data by now


def tokens_of_template(template: str) -> list[tuple[str, str]]:
    """The kinds and texts of a template's tokens. A template that is none is one token."""
    tokens: list[tuple[str, str]] = []
    try:
        for _, kind, text in ENVIRONMENT.lex(template):
            if kind == DATA and tokens and tokens[-1][0] == DATA:
                tokens[-1] = (DATA, tokens[-1][1] + text)
            elif kind not in DROPPED:
                tokens.append((kind, "" if kind in MARKS else text))
    except TemplateSyntaxError:
        return [("none", template)]
    return tokens
