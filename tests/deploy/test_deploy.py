"""The files for deployment, checked against the settings of the server."""

import configparser
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings, load_settings, refuse_unknown_variables

ROOT = Path(__file__).parents[2]
yaml: Any = pytest.importorskip("yaml")


def kubernetes() -> dict[str, Any]:
    """The objects of the manifests by their kinds; each kind occurs once."""
    objects = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text()))
    by_kind = {item["kind"]: item for item in objects}
    assert len(by_kind) == len(objects)
    return by_kind


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = kubernetes()["Deployment"]["spec"]["template"]["spec"]
    return spec


def image() -> tuple[dict[str, str], list[str]]:
    """The variables and the command of the image."""
    text = (ROOT / "Dockerfile").read_text()
    variables = [pair for line in re.findall(r"^ENV (.*)$", text, re.MULTILINE) for pair in shlex.split(line)]
    (command,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    return dict(pair.split("=", 1) for pair in variables), yaml.safe_load(command)


def settings_under(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a server that is started as in the image, with more variables."""
    environment = {name: value for name, value in (image()[0] | variables).items() if name.startswith("ERRATA_")}
    refuse_unknown_variables(environment)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings(host="0.0.0.0", allow_public_bind=True)


def test_the_manifests_can_be_applied_again() -> None:
    assert set(kubernetes()) == {"PersistentVolumeClaim", "Deployment", "Service"}  # a job of a fixed name is immutable

    (migrate,) = pod()["initContainers"]
    assert migrate["command"] == ["errata", "migrate"]
    assert migrate["image"] == pod()["containers"][0]["image"]


def test_the_pod_gets_no_service_variables_that_the_server_would_refuse() -> None:
    assert kubernetes()["Service"]["metadata"]["name"] == "errata"  # ERRATA_PORT=tcp://…, unless service links are off
    assert pod()["enableServiceLinks"] is False


def test_the_probes_ask_the_port_for_health_checks_which_no_client_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    (server,) = pod()["containers"]
    variables = {entry["name"]: entry["value"] for entry in server["env"] if "value" in entry}
    given = {"ERRATA_HEALTH_PORT": variables["ERRATA_HEALTH_PORT"], "ERRATA_ALLOWED_HOSTS": "errata"}
    port = settings_under(given, monkeypatch).health_port
    probes = [server[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]

    assert port is not None and {probe["port"] for probe in probes} == {port}
    assert [probe["path"] for probe in probes] == ["/health/startup", "/health/ready", "/health/live"]
    assert port in {each["containerPort"] for each in server["ports"]}
    assert port not in {each["targetPort"] for each in kubernetes()["Service"]["spec"]["ports"]}


def test_a_frozen_server_is_restarted_in_every_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    (server,) = pod()["containers"]
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(ROOT / "deploy" / "errata.service")

    assert server["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert server["livenessProbe"]["timeoutSeconds"] > 1
    assert unit["Service"]["Type"] == "notify"
    assert int(unit["Service"]["WatchdogSec"]) > 0
    assert unit["Service"]["Restart"] == "on-failure"
    assert int(unit["Service"]["LimitNOFILE"]) > 2 * Settings().limits.connections
    assert settings_under({}, monkeypatch).frozen_s > 0


@pytest.mark.parametrize("file", ["Dockerfile", "docker-compose.yml", "deploy/errata.service", "deploy/kubernetes.yaml"])
def test_no_deployment_names_the_threads_which_a_store_chooses_for_its_model(file: str) -> None:
    text = (ROOT / file).read_text()

    assert [name for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ERRATA_TORCH_THREADS", "ERRATA_DTYPE") if name in text] == []


def test_the_image_answers_to_the_names_of_the_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    command = image()[1]

    assert command == ["errata", "serve", "--host", "0.0.0.0", "--allow-public-bind"]
    assert settings_under({}, monkeypatch).allowed_hosts == ("localhost", "127.0.0.1")


def test_compose_publishes_on_the_loopback_and_allows_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    server = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["server"]

    assert all(port.startswith("127.0.0.1:") for port in server["ports"])
    variables = {name: value for name, value in server["environment"].items() if name != "ERRATA_DATABASE_URL"}
    assert settings_under(variables, monkeypatch).allowed_hosts == ("localhost", "127.0.0.1")
    assert server["restart"] == "unless-stopped"


def test_the_pod_answers_to_the_service_s_names(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {entry["name"]: entry.get("value", "test") for entry in pod()["containers"][0]["env"]}
    hosts = variables["ERRATA_ALLOWED_HOSTS"].replace("$(NAMESPACE)", variables["NAMESPACE"])

    assert settings_under({"ERRATA_ALLOWED_HOSTS": hosts}, monkeypatch).allowed_hosts == (
        "errata",
        "errata.test",
        "errata.test.svc",
        "errata.test.svc.cluster.local",
    )
