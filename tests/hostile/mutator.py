"""Hostile requests, endlessly and repeatably: sound ones of every route with something broken in them.

Every request holds `MARK` wherever a client's text can stand, so that an echo is found by looking for it.
"""

import copy
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

MARK = "XYZZY-echo-"
EDIT = {
    "prompt": f"The capital of {MARK} is",
    "target": "Sydney",
    "subject": MARK,
    "relation": "capital",
    "rephrases": [f"What is the capital of {MARK}?", {"prompt": f"{MARK}'s capital is", "train": False}],
    "locality": [{"prompt": "The capital of Austria is", "answer": "Vienna"}],
    "metadata": {MARK: [1, 2.5, None, {"deep": True}]},
}
RECORD = {
    "id": MARK,
    "prompt": f"The capital of {MARK} is",
    "target": "Sydney",
    "aliases": [["Sydney", MARK]],
    "locality": [{"prompt": MARK, "answer": "Vienna", "group": MARK, "pool": False, "aliases": [[MARK]]}],
    "generation": [MARK],
}
NUMBERS: tuple[Any, ...] = (-1, 0, True, 2**31, 2**63, 2**64, 10**40, -0.0, 1.5, 1e308, float("nan"), float("inf"), float("-inf"))
TEXTS = (
    *(
        "",
        " ",
        "\t\n",
        "\x00",
        f"{MARK}\x00",
        "\ud800",
        f"{MARK}\udfff",
        "\uffff",
        "\u202e" + MARK,
        "\ufeff",
        "\u200b",
        "a\u0301" * 500,
    ),
    *("\U0001f600" * 3, "</s>", "<|eot_id|>", "<s>", "\r\nX-Injected: 1", "%00", "%s%n", "nan", "x" * 40_000, f"{MARK} " * 3_000),
    *("'; DROP TABLE edits; --", "{{7*7}}", "../../etc/passwd"),
)
OTHERS: tuple[Any, ...] = (None, [], {}, [[]], [None], {MARK: MARK}, [MARK] * 70, "head", "base", "live", MARK)
RAW = (
    *(b"", b"{", b"}", b"null", b"[]", b'"', b"\x00", b"\xff\xfe", b"\xef\xbb\xbf{}", b"{" * 5_000, b"[" * 200_000, b"1" * 5_000),
    *(
        b'{"a":' * 40 + b"1" + b"}" * 40,
        b'{"prompt": NaN}',
        b'{"prompt": 1, "prompt": 2}',
        b"{'prompt': 'a'}",
        b'{"prompt": "a",}',
    ),
    *(b'{"prompt": "a", "target": "b", "metadata": {"x": 1e999}}', b'{"prompt": "\\ud800", "target": "b"}'),
    b'{"prompt": "a", "target": "b", "\\ud800": 1}',
)
KINDS = ("text/plain", "application/xml", "multipart/form-data; boundary=x", "application/json; charset=utf-16", "", MARK)


@dataclass
class HostileRequest:
    """One request; `content` None sends none."""

    method: str
    path: str
    query: dict[str, Any] = field(default_factory=dict)
    body: Any = None
    content: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """Path and query as they stand in the request line."""
        query = urlencode({name: _text(value) for name, value in self.query.items()}, errors="surrogatepass")
        return self.path + (f"?{query}" if query else "")

    def payload(self) -> bytes | None:
        """The body's bytes; numbers that JSON does not have are written as Python writes them."""
        if self.content is not None:
            return self.content
        return None if self.body is None else json.dumps(self.body).encode()


def sound_requests() -> list[HostileRequest]:
    """What attacks start from. None of them would change anything if one field more were wrong."""
    return [
        HostileRequest("POST", "/edits", {"wait": 0}, EDIT),
        HostileRequest("POST", "/edits/batch", {}, {"edits": [EDIT, EDIT]}),
        HostileRequest("GET", "/edits", {"status": "applied", "limit": 5, "cursor": "YWZ0ZXI6MQ"}),
        HostileRequest("GET", f"/edits/{MARK}"),
        HostileRequest("DELETE", f"/edits/{MARK}", {"restore_previous": "false"}),
        HostileRequest("GET", "/generate", {"prompt": MARK, "max_new_tokens": 2, "version": "head"}),
        HostileRequest(
            "POST",
            "/generate",
            {},
            {"prompt": MARK, "max_new_tokens": 2, "temperature": 0.5, "top_p": 0.9, "seed": 1, "stop": ["x"]},
        ),
        HostileRequest("GET", "/versions", {"limit": 5}),
        HostileRequest("GET", "/versions/0"),
        HostileRequest("GET", "/versions/0/bases"),
        HostileRequest("POST", "/admin/rollback", {}, {"to": 99, "reason": MARK, "requeue": False}, headers={"If-Match": '"0"'}),
        HostileRequest("POST", "/admin/retrain", {}, {"reason": MARK}),
        HostileRequest("POST", "/admin/retrain", {}, {"reason": MARK, "mode": "minor"}),
        HostileRequest("POST", "/admin/export", {}, {"version": 99, "name": "mark", "max_shard_size": "1MB"}),
        HostileRequest("POST", "/admin/export", {}, {"name": f"../{MARK}"}),
        HostileRequest("POST", "/admin/revoke", {}, {"author": MARK, "since": "2026-11-20T12:00:00Z", "reason": MARK}),
        HostileRequest("POST", "/admin/purge", {}, {"edits": [MARK]}),
        HostileRequest("GET", "/jobs", {"kind": "retrain", "status": "done", "limit": 5, "cursor": "aWQ6YQ"}),
        HostileRequest("GET", f"/jobs/{MARK}"),
        HostileRequest("DELETE", f"/jobs/{MARK}"),
        HostileRequest("POST", "/eval", {}, {"version": 0, "edits": [MARK], "metrics": "full", "capability": False}),
        HostileRequest("POST", "/eval", {}, {"version": 10**6, "edits": [RECORD]}),
        HostileRequest("GET", "/eval", {"version": "0", "status": "done", "limit": 5, "cursor": "aWQ6YQ"}),
        HostileRequest("GET", "/eval/compare", {"ids": f"{MARK},{MARK}"}),
        HostileRequest("GET", f"/eval/{MARK}"),
        HostileRequest("DELETE", f"/eval/{MARK}"),
        HostileRequest("GET", "/model"),
        HostileRequest("GET", "/health/ready"),
        HostileRequest("GET", "/"),
    ]


def attacks(count: int, seed: int) -> Iterator[HostileRequest]:
    """`count` requests that are all wrong in at least one way."""
    draw = random.Random(seed)
    sound = sound_requests()
    mutations = (_spoil_field, _spoil_field, _spoil_query, _spoil_path, _spoil_bytes, _spoil_kind, _spoil_method, _unknown_field)
    made = 0
    while made < count:
        attack = copy.deepcopy(draw.choice(sound))
        if draw.choice(mutations)(attack, draw):
            made += 1
            yield attack


def _spoil_field(attack: HostileRequest, draw: random.Random) -> bool:
    if not isinstance(attack.body, dict):
        return False
    places = list(_places(attack.body))
    holder, key = draw.choice(places)
    if draw.random() < 0.15 and isinstance(holder, dict) and holder is attack.body:
        del holder[draw.choice([name for name in holder if name in ("prompt", "target", "edits", "to", "reason")] or [key])]
    else:
        holder[key] = draw.choice((*NUMBERS, *TEXTS, *OTHERS))
    return True


def _spoil_query(attack: HostileRequest, draw: random.Random) -> bool:
    if not attack.query:
        return False
    attack.query[draw.choice(list(attack.query))] = draw.choice((*NUMBERS, *TEXTS[:20], "x" * 20_000))
    return True


def _unknown_field(attack: HostileRequest, draw: random.Random) -> bool:
    name = draw.choice((MARK, "__proto__", "id", "status", "author", "prompt ", "a" * 300))
    if isinstance(attack.body, dict) and draw.random() < 0.7:
        attack.body[name] = draw.choice(OTHERS)
        return True
    attack.query[name] = MARK
    return attack.path != "/"


def _spoil_path(attack: HostileRequest, draw: random.Random) -> bool:
    tails = (
        "/",
        "/" + MARK,
        "/%00",
        "/..",
        "//",
        "/%2e%2e/",
        "/%ff",
        "/-1",
        "/1e9",
        "/" + "9" * 30,
        "/head/bases",
        "/x" * 200,
        ";a=b",
        "%0d%0a",
    )
    attack.path = draw.choice((attack.path, "/versions", "/edits", "/jobs", "/eval")) + draw.choice(tails)
    return True


def _spoil_bytes(attack: HostileRequest, draw: random.Random) -> bool:
    payload = attack.payload()
    if payload is None:
        return False
    choices: tuple[Callable[[], bytes], ...] = (
        lambda: draw.choice(RAW),
        lambda: payload[: draw.randrange(len(payload))],
        lambda: _flipped(payload, draw),
        lambda: payload + draw.choice(RAW),
        lambda: payload.decode().encode(draw.choice(("utf-16", "utf-32"))),
    )
    attack.content = draw.choice(choices)()
    return attack.content != payload


def _spoil_kind(attack: HostileRequest, draw: random.Random) -> bool:
    attack.headers["Content-Type"] = draw.choice(KINDS)
    attack.headers["Idempotency-Key"] = draw.choice(("", "x" * 256, MARK + "\x7f"))
    attack.headers["If-Match"] = draw.choice(("", MARK, '"-1"', '"' + "9" * 40 + '"', "*"))
    return attack.body is not None


def _spoil_method(attack: HostileRequest, draw: random.Random) -> bool:
    attack.method = draw.choice(("PUT", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW"))
    return True


def _flipped(payload: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(payload))
    return payload[:at] + bytes([payload[at] ^ (1 << draw.randrange(8))]) + payload[at + 1 :]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) inside a JSON value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(entries):
        yield value, key
        yield from _places(inner)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
