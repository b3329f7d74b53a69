"""Tokens of a chat template: equal tokens render alike, and what renders differently has other tokens."""

from itertools import combinations

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from service.lm.chat_template_tokens import tokens_of_template

LOOP = "{% for m in messages %}\n<{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}\n"
CONVERSATIONS = [
    [{"role": "user", "content": "a"}],
    [{"role": "system", "content": " s "}, {"role": "user", "content": "{{ x }}\n"}, {"role": "assistant", "content": "-%}"}],
]
# One program in several writings.
SAME = [
    LOOP,
    "{# ours #}" + LOOP,
    "{#\n ours,\n of two lines\n-#}\n" + LOOP,
    LOOP.replace("<", "{# {% if %} #}<"),
    LOOP.replace("<", "{% raw %}<{% endraw %}"),
    LOOP.replace("{% for m in messages %}", "{%for   m\n in messages%}"),
    LOOP.replace("\n", "\r\n"),
    LOOP.removesuffix("\n"),
]
OTHER = [
    LOOP.replace("%}\n<", "-%}\n<"),  # the same text: the line break after a tag is no output
    LOOP.replace("> ", ">  "),
    LOOP.replace("> ", "> {#- ours -#}"),
    LOOP.replace("'content'", "'role'"),
    LOOP.replace("{{ m['content'] }}", "{{- m['content'] -}}"),
    LOOP + "{% if add_generation_prompt %}>{% endif %}",
]


def rendered(template: str) -> list[str]:
    return [
        render_jinja_template(conversations=[conversation], chat_template=template, add_generation_prompt=True)[0][0]
        for conversation in CONVERSATIONS
    ]


@pytest.mark.parametrize("template", SAME)
def test_a_comment_and_white_space_that_is_no_output_change_no_token(template: str) -> None:
    assert tokens_of_template(template) == tokens_of_template(LOOP)
    assert rendered(template) == rendered(LOOP)


def test_templates_that_render_differently_have_other_tokens() -> None:
    for one, other in combinations([LOOP, *OTHER], 2):
        assert rendered(one) == rendered(other) or tokens_of_template(one) != tokens_of_template(other)
    assert rendered(LOOP) not in [rendered(other) for other in OTHER[1:]]


def test_a_text_that_is_no_template_is_compared_as_it_is() -> None:
    assert tokens_of_template("{{ 'a }}") != tokens_of_template("{{ 'b }}")
    assert tokens_of_template("{{ 'a }}") == tokens_of_template("{{ 'a }}")
