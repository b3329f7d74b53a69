"""A whole server over a tiny random model: the real parts, the real port, real HTTP."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from service.api.state import ServerState
from service.runtime.app import create_app
from service.runtime.assembly import open_server
from service.runtime.server import uvicorn_config
from service.settings import Settings
from tests.api.uvicorn_thread import serve_in_thread
from tests.hooks import find_hooked_modules
from tests.no_limits import NO_LIMITS

WAIT_S = 30


@dataclass
class LiveServer:
    """A running server: a client for it, and its parts."""

    client: httpx.Client
    state: ServerState
    port: int

    def edit(self, prompt: str, target: str, **more: Any) -> dict[str, Any]:
        """Post an edit and wait until it is settled."""
        response = self.client.post(f"/edits?wait={WAIT_S}", json={"prompt": prompt, "target": target, **more})
        assert response.status_code == 200, response.text
        edit: dict[str, Any] = response.json()
        return edit

    def ask(self, prompt: str, **more: Any) -> dict[str, Any]:
        """The model's answer."""
        response = self.client.post("/generate", json={"prompt": prompt, "max_new_tokens": 8, **more})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def follow(self, path: str, has_ended: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Read a resource until it has ended, ten times a second."""
        pause = threading.Event()
        for _ in range(WAIT_S * 10):
            resource: dict[str, Any] = self.client.get(path).json()
            if has_ended(resource):
                return resource
            pause.wait(0.1)
        raise AssertionError(f"{path} did not end")


def tiny_settings(model: Path, data_dir: Path, *, window: Mapping[str, Any] | None = None, **more: Any) -> Settings:
    """Settings for a random model: few neutral sentences, acceptance that refuses no version, and fits of the edits alone. What
    lies beside an edit, or says it in other words, is nothing that a random model knows. Retrains have a rate at which it learns.
    """
    alone = {"wordings": 0, "contrast_weight": 0.0}
    retrain = {"position": "published", "learning_rate": 0.06, "preserve_questions": 0}
    quick = {"baft": {**alone, "window_wordings": 0, "stop_margin": 1.0}, "locft": {**alone, **retrain}}
    return Settings(
        model=str(model),
        data_dir=data_dir,
        port=0,
        neutral={"sentences": 24, "held_out": 24, "tokens": 12},  # type: ignore[arg-type]
        window={**NO_LIMITS, "soft": 40, "hard": 60, **(window or {})},  # type: ignore[arg-type]
        **{**quick, **more},
    )


@contextmanager
def live_server(settings: Settings) -> Iterator[LiveServer]:
    """Open a server's parts, then its port; close both. Afterwards no hook is left on its model."""
    with open_server(settings) as state:
        with serve_in_thread(uvicorn_config(create_app(settings, state), settings)) as port:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S + 10) as client:
                yield LiveServer(client, state, port)
    assert find_hooked_modules(state.base.model) == []
