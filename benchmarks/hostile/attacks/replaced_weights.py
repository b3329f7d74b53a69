"""The model's file is overwritten, and then truncated, while the server answers."""

import shutil
import time

from benchmarks.hostile.clients import ask_generate, ask_ready, run_clients, start_raw
from benchmarks.hostile.tools import Attack, AttackResult, AttackTools
from service.atlas import weights_path

DETECTION_S = 30.0
QUESTIONS = {"generate": (8, ask_generate), "ready": (1, ask_ready)}


def replaced_weights(tools: AttackTools) -> AttackResult:
    """Overwrite the weights in place, then truncate the file to half. Every answer must stay the same."""
    model = tools.folder / "model"
    shutil.copytree(weights_path(), model)
    weights = next(model.glob("*.safetensors"))
    with tools.server(model=str(model)) as server, start_raw(server) as client:
        url = str(client.base_url).rstrip("/")
        with tools.probe_health(url), run_clients(url, QUESTIONS) as counts:
            time.sleep(1)
            with weights.open("r+b") as file:
                size = file.seek(0, 2)
                file.seek(size // 10)
                file.write(bytes(size - size // 10))
            time.sleep(3)
            with weights.open("r+b") as file:
                file.truncate(size // 2)
            deadline = time.monotonic() + DETECTION_S
            while (degraded := client.get("/model").json()["degraded"]) is None and time.monotonic() < deadline:
                time.sleep(0.2)
            time.sleep(2)
        texts = counts.bodies.get("generate", set())
        is_held = not server.is_gone() and set(counts.statuses["generate"]) == {200} and len(texts) == 1 and degraded is not None
        return AttackResult(is_held, f"{counts.summarise()}; {len(texts)} different answer(s); said: {degraded}")


ATTACKS = (Attack("the model's file overwritten, then cut", replaced_weights),)
