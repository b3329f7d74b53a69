"""Request bodies: expensive to parse, with millions of tiny values, half-sent, blank, or in 200,000 chunks."""

import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import httpx

from benchmarks.hostile.clients import start_raw
from benchmarks.hostile.tools import Attack, AttackResult, AttackTools, MemoryWatch

TYPE = {"Content-Type": "application/json"}
HEAD = "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
MB = 1_000_000
AT_ONCE = 4
HALF_SENT = 60
HALF_BYTES = 7_900_000
PIECES = 200_000
MOST_MB = 200.0  # of memory for an attack of any size: the limit on all bodies, and the parsed values of one body


@contextmanager
def open_target(tools: AttackTools) -> Iterator[tuple[str, MemoryWatch]]:
    """The address of a server whose health is probed, and the growth of its memory."""
    with tools.server() as server, start_raw(server) as client:
        url = str(client.base_url).rstrip("/")
        with tools.probe_health(url), MemoryWatch(server.pid) as memory:
            yield url, memory


def expect_refusal(tools: AttackTools, path: str, body: bytes, statuses: set[int]) -> AttackResult:
    """Send the same body several times at once. Each must be refused with one of these statuses."""

    def send(url: str) -> int:
        return httpx.post(url + path, content=body, headers=TYPE, timeout=300, trust_env=False).status_code

    with open_target(tools) as (url, memory), ThreadPoolExecutor(AT_ONCE) as senders:
        started_at = time.monotonic()
        counts = Counter(senders.map(send, [url] * AT_ONCE))
        seconds = time.monotonic() - started_at
    counts_text = ", ".join(f"{count} x {status}" for status, count in sorted(counts.items()))
    finding = f"{AT_ONCE} at once of {len(body) / MB:.1f} MB: {counts_text} in {seconds:.1f} s, +{memory.grown_mb:.0f} MB"
    return AttackResult(set(counts) <= statuses and memory.grown_mb <= MOST_MB, finding)


def one_text_of_quotes(tools: AttackTools) -> AttackResult:
    """A text that once made a pattern backtrack: 32 KB took 4.4 s of processor, and every thread waited."""
    return expect_refusal(tools, "/edits", b'"' + b'\\"' * 499_000, {400})


def flat_list(tools: AttackTools) -> AttackResult:
    """Millions of numbers of one digit."""
    return expect_refusal(tools, "/edits/batch", b'{"edits": [' + b"0," * 3_900_000 + b"0]}", {422})


def unknown_fields(tools: AttackTools) -> AttackResult:
    """As many values as a body may have, all of them unknown fields of edits."""
    edit = "{" + ",".join(f'"{number:x}":""' for number in range(198)) + "}"
    return expect_refusal(tools, "/edits/batch", ('{"edits": [' + ",".join([edit] * 1_000) + "]}").encode(), {422})


def blank_batch(tools: AttackTools) -> AttackResult:
    """A batch whose prompts are invisible characters alone."""
    edits = [{"prompt": "\u200b " * 1_900, "target": "x"} for _ in range(1_000)]
    return expect_refusal(tools, "/edits/batch", json.dumps({"edits": edits}, ensure_ascii=False).encode(), {422})


def half_sent(tools: AttackTools) -> AttackResult:
    """Bodies that stop before their last bytes. Meanwhile a small request must be answered."""
    with open_target(tools) as (url, memory), ExitStack() as stack:
        head = HEAD.format(path="/edits/batch", length=f"Content-Length: {HALF_BYTES + 100_000}").encode()
        clients = []
        for _ in range(HALF_SENT):
            client = stack.enter_context(_connected(url))
            with suppress(OSError):  # the server may refuse the body before its end
                client.sendall(head + b" " * HALF_BYTES)
            clients.append(client)
        small_status = httpx.get(
            f"{url}/generate", params={"prompt": "The capital of Austria is"}, timeout=60, trust_env=False
        ).status_code
        statuses = Counter(filter(None, map(_status, clients)))
    finding = f"{HALF_SENT} of 7.9 MB: {statuses[503]} x 503, a small request meanwhile {small_status}, +{memory.grown_mb:.0f} MB"
    return AttackResult(small_status == 200 and statuses[503] > 0 and memory.grown_mb <= MOST_MB, finding)


def tiny_chunks(tools: AttackTools) -> AttackResult:
    """A body of one byte a chunk."""
    with open_target(tools) as (url, memory), _connected(url) as client:
        started_at = time.monotonic()
        with suppress(OSError):
            client.sendall(HEAD.format(path="/edits", length="Transfer-Encoding: chunked").encode())
            for _ in range(PIECES // 1_000):
                client.sendall(b"1\r\n \r\n" * 1_000)
        status, seconds = _status(client), time.monotonic() - started_at
    return AttackResult(
        status in (400, None),
        f"{PIECES:,} chunks of a byte: {status or 'closed'} after {seconds:.2f} s, +{memory.grown_mb:.0f} MB",
    )


def _connected(url: str) -> socket.socket:
    address = httpx.URL(url)
    return socket.create_connection((address.host, address.port or 80), timeout=60)


def _status(client: socket.socket) -> int | None:
    """The status of a client's answer, if it arrives soon. Unsent bytes may have reset the connection and lost the answer."""
    client.settimeout(0.2)
    try:
        line = client.recv(4096).partition(b"\r\n")[0].split()
    except OSError:
        return None
    return int(line[1]) if len(line) > 1 else None


ATTACKS = (
    Attack("one text of quotes", one_text_of_quotes),
    Attack("a flat list of numbers", flat_list),
    Attack("unknown fields", unknown_fields),
    Attack("a blank batch", blank_batch),
    Attack("half-sent bodies", half_sent),
    Attack("chunks of one byte", tiny_chunks),
)
