"""The model's own file is overwritten, and then cut, while the server answers from it."""

import shutil
import time

from benchmarks.hostile.crowd import ask_generate, ask_ready, run_clients
from benchmarks.hostile.ground import Attack, AttackResult, AttackTools
from service.atlas import weights_path

SEEN_S = 30.0
QUESTIONS = {"generate": (8, ask_generate), "ready": (1, ask_ready)}


def replaced_weights(ground: AttackTools) -> AttackResult:
    """Other bytes over the weights in place, then half of the file cut off; every answer stays what it was."""
    model = ground.folder / "model"
    shutil.copytree(weights_path(), model)
    weights = next(model.glob("*.safetensors"))
    with ground.server(model=str(model)) as server, server.start() as client:
        url = str(client.base_url).rstrip("/")
        with ground.pulse(url), run_clients(url, QUESTIONS) as found:
            time.sleep(1)
            with weights.open("r+b") as file:
                size = file.seek(0, 2)
                file.seek(size // 10)
                file.write(bytes(size - size // 10))
            time.sleep(3)
            with weights.open("r+b") as file:
                file.truncate(size // 2)
            until = time.monotonic() + SEEN_S
            while (said := client.get("/model").json()["degraded"]) is None and time.monotonic() < until:
                time.sleep(0.2)
            time.sleep(2)
        texts = found.bodies.get("generate", set())
        held = not server.is_gone() and set(found.statuses["generate"]) == {200} and len(texts) == 1 and said is not None
        return AttackResult(held, f"{found.said()}; {len(texts)} different answer(s); said: {said}")


ATTACKS = (Attack("the model's file overwritten, then cut", replaced_weights),)
