"""A process that has imported everything and forks servers from itself, so that a server starts without imports.

The zygote reads one JSON command a line and answers each with one line. The process that requested a server kills it; the zygote
waits for the killed process. When its input ends, the zygote ends its servers and itself.
"""

import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # optimizers import it when the first one is made

import service.runtime.server
from benchmarks.random_model import byte_tokenizer, llama
from service.lm.overlay import make_view
from service.lm.scoring import decode_greedily
from service.runtime.sockets import bind_port
from service.settings import load_settings
from service.store.migrate import upgrade
from service.telemetry.log import configure_logging

STANDARD_STREAMS = 3


def main() -> None:
    """Answer commands until the input ends."""
    torch.set_num_threads(1)
    _import_the_rest()
    children: set[int] = set()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        command = json.loads(line)
        if "start" in command:
            pid = os.fork()
            if pid == 0:
                _become_server(command["start"], Path(command["log"]))
            children.add(pid)
            print(json.dumps({"pid": pid}), file=answers)
        else:
            children.discard(command["bury"])
            _, status = os.waitpid(command["bury"], 0)
            print(json.dumps({"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None}), file=answers)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _import_the_rest() -> None:
    """Much is imported at the first use of a model, a tokenizer and a database, so each is used once. No gradients are computed,
    since their threads would not survive a fork."""
    byte_tokenizer()
    decode_greedily(make_view(llama("small", device="cpu", dtype=torch.float32)), None, [(2, 3)], max_new_tokens=2)
    with tempfile.TemporaryDirectory() as folder:
        upgrade(f"sqlite:///{folder}/none.db")


def _become_server(settings: dict[str, Any], log: Path) -> None:
    """Serve in this process, which shares no open file with the zygote, until it is stopped or killed."""
    status = 1
    try:
        os.closerange(STANDARD_STREAMS, 256)
        log_descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        null_descriptor = os.open(os.devnull, os.O_RDONLY)
        for target, source in enumerate((null_descriptor, log_descriptor, log_descriptor)):
            os.dup2(source, target)
        loaded = load_settings(**settings)
        configure_logging(loaded.log_level)
        with bind_port(loaded.host, loaded.port) as sockets:
            service.runtime.server.serve(loaded, sockets)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
