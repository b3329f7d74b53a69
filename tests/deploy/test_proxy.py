"""deploy/nginx.conf, with other ports and another log, run by a real nginx in front of the HTTP edge."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.client.local_server import free_port
from service.settings import Settings
from tests.api.edge_server import edge_app, serve_edge

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx.conf"
EDIT = {"prompt": "The capital of Australia is", "target": "Sydney"}
MAIN_CONFIGURATION = """\
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {site}
}}
"""


@contextmanager
def run_proxy(folder: Path, upstream: int) -> Iterator[httpx.Client]:
    """A client of nginx in front of a port."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    site = CONFIGURATION.read_text()
    replacements = {"127.0.0.1:8000": f"127.0.0.1:{upstream}", ":8080": f":{port}", "/var/log/nginx": str(folder)}
    for original, replacement in replacements.items():
        assert original in site
        site = site.replace(original, replacement)
    (folder / "nginx.conf").write_text(MAIN_CONFIGURATION.format(folder=folder, site=site))
    process = subprocess.Popen([program, "-c", str(folder / "nginx.conf")], stderr=subprocess.PIPE, text=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=9)) as client:
            yield client
    finally:
        process.terminate()
        process.communicate()


def test_the_proxy_passes_allowed_requests_and_logs_no_prompt(tmp_path: Path) -> None:
    settings = Settings(allowed_hosts=("errata.example",))
    app = edge_app(settings)
    with serve_edge(app, settings) as port, run_proxy(tmp_path, port) as client:
        listed = client.get("/edits?status=applied")
        posted = client.post("/edits", json=EDIT)
        named = client.get("/edits", headers={"Host": "errata.example"})
        foreign = client.get("/edits", headers={"Host": "evil.example"})
        own_page = client.post("/edits", json=EDIT, headers={"Origin": str(client.base_url).rstrip("/")})
        other_page = client.post("/edits", json=EDIT, headers={"Origin": "http://evil.example"})
        large = client.post("/edits", json=EDIT | {"metadata": {"x": "y" * 9_000_000}})

    assert (listed.status_code, posted.status_code, named.status_code) == (200, 200, 200), listed.text
    assert (foreign.status_code, foreign.json()["type"]) == (400, "urn:errata:problem:host")
    assert (own_page.status_code, other_page.status_code) == (200, 403)
    assert large.status_code == 413
    log = (tmp_path / "errata.log").read_text()
    assert listed.headers["x-request-id"] in log
    assert "status=applied" not in log
