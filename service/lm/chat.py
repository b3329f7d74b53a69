"""The chat surface: the model's own template around users' text.

The template may contain control tokens, and users' text may not. So the template is rendered around markers, and template and
texts are encoded separately. The usual joint encoding is used if it has the same control tokens. A template that reads the clock
reads the base's day.
"""

import json
import re
from collections.abc import Sequence
from datetime import date, datetime, time
from itertools import chain
from typing import Any, TypeVar

from service.domain.errors import Refused, TooLong, Unavailable
from service.lm.base import Base
from service.lm.scope import prompt_text
from service.lm.tokenizing import decode_ids, encode_text

T = TypeVar("T")
MARK = "\ue0f1{}\ue0f2"  # private-use characters, which no template has
CLOCK_DIRECTIVES = ("-d", "-m", "-y", "-j", "-H", "-I", "-M", "-S", *"aAwdbBmyYHIpMSfzZjUWcxXDFeGuVRT")  # of `strftime`
_CONVERSATIONS = (("user",), ("system", "user"), ("user", "assistant", "user"), ("system", "user", "assistant", "user"))
MARKED = re.compile(MARK.format("([0-9]+)"))


def chat_prompt_ids(base: Base, prompt: str, *, system: str | None, turns: Sequence[tuple[str, str]]) -> tuple[int, ...]:
    """The ids of the rendered conversation, up to the start of the assistant's next message."""
    messages = [("system", system, "system")] if system is not None else []
    for question, answer in turns:
        messages += [("user", question, "turns"), ("assistant", answer, "turns")]
    messages.append(("user", prompt, "prompt"))
    texts = [text.strip() for _, text, _ in messages]
    if not texts[-1]:
        raise Refused("The prompt is blank.", field="prompt")
    for (_, _, field), text in zip(messages, texts, strict=True):
        if MARK[0] in text or MARK[-1] in text:
            raise Refused(f"The {field} holds private-use characters that the chat surface needs.", field=field)
    frame, order = _frame(base, [role for role, _, _ in messages])
    texts = [texts[number] for number in order]
    encoded = [encode_text(base, text, field=messages[number][2]) for number, text in zip(order, texts, strict=True)]
    separate = tuple(chain(*_interleave([_encode_template(base, piece) for piece in frame], encoded)))
    if len(separate) > 2 * base.context_length:
        raise TooLong(f"The prompt is longer than the model's context of {base.context_length} tokens allows.", field="prompt")
    joint = _encode_template(base, "".join(_interleave(frame, texts)))
    return joint if _controls(base, joint) == _controls(base, separate) else separate


def chat_end_id(base: Base) -> tuple[int, ...]:
    """The end token of an assistant's turn in the template, if the model names it as an end; else the tokenizer's end token."""
    try:
        after = _encode_template(base, _frame(base, ["user", "assistant"], reply=False)[0][-1])
    except Refused:
        after = ()
    return after[:1] if set(after[:1]) & set(base.eos_ids) else base.eos_ids[:1]


def template_tail(base: Base) -> tuple[int, ...]:
    """The ids that the template puts between the user's last text and the assistant's next message.

    Empty where that is not one and the same for all kinds of conversations, or holds no control token: then a user's text could
    end with it. Empty for a model without a template.
    """
    tails = {tail for roles in _CONVERSATIONS if (tail := _tail(base, roles)) is not None}
    if len(tails) != 1:
        return ()
    ids = _encode_template(base, tails.pop())
    return ids if _controls(base, ids) else ()


def template_header(base: Base) -> str:
    """The text that the template writes in front of the user's first text, as scopes read it; blank for a model without one."""
    try:
        frame, _ = _frame(base, ["user"])
    except Refused:
        return ""
    ids = _encode_template(base, frame[0])
    return prompt_text(ids, base.control_ids, lambda piece: decode_ids(base, piece))


def template_footer(base: Base) -> str:
    """The text that the template writes behind the user's last text, as scopes read it; blank as `template_tail` is empty."""
    return prompt_text(template_tail(base), base.control_ids, lambda piece: decode_ids(base, piece))


def _tail(base: Base, roles: Sequence[str]) -> str | None:
    """The template's text behind the last message; blank if that message is not the user's last. None for what it refuses."""
    try:
        frame, order = _frame(base, roles)
    except Refused:
        return None
    return frame[-1] if order[-1] == len(roles) - 1 else ""


def _frame(base: Base, roles: Sequence[str], *, reply: bool = True) -> tuple[list[str], list[int]]:
    """The template's own text around the messages, one piece more than messages, and the messages' numbers in the order in which
    the template has them: some move the system text into the user's last turn.
    """
    if "chat" not in base.surfaces:
        raise Refused("The model has no chat template, so the surface chat is not to be had.", field="surface")
    marks = [MARK.format(number) for number in range(len(roles))]
    rendered = _render(base, [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)], reply)
    pieces = MARKED.split(rendered)  # the template's pieces, and between them the numbers of the marks
    order = [int(number) for number in pieces[1::2]]
    if sorted(order) != list(range(len(roles))):
        raise Refused("The model's chat template does not keep each message once, so it cannot be used.", field="surface")
    return pieces[::2], order


def _render(base: Base, messages: list[dict[str, str]], reply: bool) -> str:
    try:
        with base.tokenizer_lock:
            options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": reply, "enable_thinking": False}
            template = base.tokenizer.get_chat_template()
            if "strftime_now" in template:
                options["chat_template"] = _with_clock(template, base.day)
            return str(base.tokenizer.apply_chat_template(messages, **options))
    except OSError as error:  # for instance too many open files: not a fault of the conversation
        raise Unavailable("The model's chat template cannot be read now.") from error
    except Exception as error:  # a template is a program of the checkpoint's author and may raise anything
        raise Refused("The model's chat template refuses this kind of conversation.", field="system") from error


def _with_clock(template: str, day: date) -> str:
    """The template with `strftime_now` as a macro of its own, which always gives the first moment of the base's day. So the same
    prompt has the same ids on every day, and an edit that was fitted to them stays live.

    A macro, because templates are given plain data alone and no functions. The line break after it belongs to it.
    """
    moment = datetime.combine(day, time.min)
    values = {f"%{directive}": moment.strftime(f"%{directive}") for directive in CLOCK_DIRECTIVES}
    filters = "".join(f"|replace({json.dumps(name)},{json.dumps(value)})" for name, value in values.items())
    percent = f"|replace('%%','{MARK[0]}')"
    body = f"{{{{ format{percent}{filters}|replace('{MARK[0]}','%') }}}}"
    return f"{{% macro strftime_now(format) %}}{body}{{% endmacro %}}\n{template}"


def _encode_template(base: Base, text: str) -> tuple[int, ...]:
    with base.tokenizer_lock:
        ids = tuple(base.tokenizer(text, add_special_tokens=False).input_ids) if text else ()
    if ids and max(ids) >= base.id_count:
        raise Refused("The model's chat template holds a token that the model has no embedding of.", field="surface")
    return ids


def _controls(base: Base, ids: Sequence[int]) -> list[int]:
    return [i for i in ids if i in base.control_ids]


def _interleave(frame: Sequence[T], texts: Sequence[T]) -> list[T]:
    """The pieces of the frame and the texts alternately."""
    return [part for pair in zip(frame, texts, strict=False) for part in pair] + [frame[-1]]
