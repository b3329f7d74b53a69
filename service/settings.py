"""All settings in one frozen object, which alone reads the environment.

Each field is also an environment variable: `ERRATA_PORT`, and for the field of a group `ERRATA_LIMITS__BODY_BYTES`. An unknown
name is refused at start, and the nearest known name is suggested: a misspelt limit that is ignored is no limit. Messages never
repeat a value, because any value may be a secret.
"""

import difflib
import ipaddress
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, create_model, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from service.domain.acceptance import AcceptanceLimits
from service.domain.cadence import Cadence
from service.domain.context_tier import ContextMode, ContextTier
from service.domain.cost_limits import CostLimits
from service.domain.edit import AUTO
from service.domain.errors import Refused
from service.domain.hosts import Host
from service.editors.names import ConsolidatingName, IncrementalName, MethodName
from service.editors.neutral_settings import NeutralSettings
from service.editors.presets import WithPresets
from service.editors.registry import DEFAULT_CONSOLIDATING, DEFAULT_INCREMENTAL, find_method_of, list_methods, names_of
from service.lm.checkpoint_folder import CheckpointFolder
from service.lm.checkpoint_store import CheckpointStore
from service.lm.export_settings import ExportSettings

ANY_HOST = "*"
PREFIX = "ERRATA_"
DELIMITER = "__"
MAX_TORCH_THREADS = 256
MODEL_VARIABLES = ("ERRATA_MODELS_DIR", "ERRATA_HUB")
MethodSettings = TypeVar("MethodSettings", bound=WithPresets)


class SettingsGroup(BaseModel):
    """A frozen group of settings that refuses unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Limits(SettingsGroup):
    """Limits of one request, of one client and of all clients together."""

    body_bytes: int = Field(1_000_000, ge=1_000, description="largest request body")
    batch_body_bytes: int = Field(8_000_000, ge=1_000, description="largest body of POST /edits/batch and POST /eval")
    bodies_bytes: int = Field(
        64_000_000,
        ge=1_000,
        description="all request bodies in flight together, beside 16 KiB of each; a body that finds no room gets 503",
    )
    header_bytes: int = Field(16_384, ge=1_024, description="largest request head: request line and headers together")
    receive_s: float = Field(10.0, gt=0, description="seconds a client may take to send one whole request")
    send_s: float = Field(10.0, gt=0, description="seconds a client may leave an answer unread")
    drain_s: float = Field(10.0, gt=0, description="seconds that requests in flight have to finish at a stop")
    concurrent_requests: int = Field(
        1_000, ge=1, description="requests answered at the same time, without health checks; more get 503"
    )
    connections: int = Field(
        2_000,
        ge=1,
        description="open connections; a further connection closes the one that is idle for longest, else the one that has waited"
        " longest for its request; a new connection is closed at once only if all others are being answered",
    )
    waiting_calls: int = Field(
        512,
        ge=0,
        description="calls with `wait` that wait at the same time; further calls are answered at once, as without `wait`",
    )
    waiting_calls_per_client: int = Field(
        128,
        ge=0,
        description="the same from one address; behind a proxy all calls have the proxy's address: set it to waiting_calls there",
    )
    waiting_edits: int = Field(10_000, ge=1, description="edits queued at the same time; more get 503")
    edit_tokens: int = Field(
        CostLimits.fit,
        ge=64,
        description="tokens in a fit of one edit: prompt and target, trained rephrases and trained locality probes, on each"
        " surface, as rows times the longest row; more get 422",
    )
    report_tokens: int = Field(CostLimits.report, ge=64, description="tokens of all questions in an edit's report; more get 422")
    batch_tokens: int = Field(
        CostLimits.batch, ge=64, description="tokens in the fits of all edits of one POST /edits/batch; more get 422"
    )
    fit_s: float = Field(
        120.0,
        gt=0,
        description="seconds that applying may take for the edits of one job; then fewer of them are tried, and a single edit is"
        " deferred to the next retrain; set it higher where a large model runs on a CPU",
    )

    @model_validator(mode="after")
    def _check_body_sizes(self) -> Self:
        if self.bodies_bytes < max(self.body_bytes, self.batch_body_bytes):
            raise ValueError("bodies_bytes must not be smaller than body_bytes and batch_body_bytes")
        return self


class GenerationSettings(SettingsGroup):
    """The decoding of answers, and how many answers may wait."""

    resident_versions: int = Field(16, ge=2, description="versions kept in memory besides those in use")
    batch: int = Field(32, ge=1, description="rows decoded together for one version")
    queue: int = Field(256, ge=1, description="answers that may wait; more get 503")
    deadline_s: float = Field(30.0, gt=0, description="seconds after which an answer ends with finish_reason `deadline`")


STRATEGIES: dict[str, dict[str, Any]] = {
    "realtime": {"deferred": 1, "deferred_s": 1.0},
    "buffered": {"deferred": 10, "deferred_s": 60.0},
}


class WindowSettings(SettingsGroup):
    """The cadence of retrains, and the limits of acceptance."""

    soft: int = Field(Cadence.soft, ge=1, description="edits in the window from which a retrain is due")
    hard: int = Field(Cadence.hard, ge=1, description="edits in the window from which further edits are deferred to the retrain")
    tokens: int = Field(
        Cadence.tokens,
        ge=1,
        description="tokens of edits in the window, as `limits.edit_tokens` counts them, from which the window is full",
    )
    strategy: Literal["compaction", "realtime", "buffered"] = Field(
        "compaction",
        description="compaction: BaFT at once, LocFT-BF later; realtime and buffered are the LocFT-BF paper's: no BaFT, a"
        " retrain from the base for every edit or for every few; they give deferred and deferred_s other defaults",
    )
    deferred: int = Field(Cadence.deferred, ge=1, description="deferred edits from which a retrain is due")
    deferred_s: float = Field(
        Cadence.deferred_s, gt=0, description="seconds after which a retrain is due for a single deferred edit"
    )
    age_s: float = Field(Cadence.age_s, gt=0, description="seconds after which a retrain is due for an edit in the window")
    retention_floor: float = Field(Cadence.retention_floor, ge=0, le=1, description="retention under which a retrain is due")
    locality_fall: float = Field(
        Cadence.locality_fall,
        gt=0,
        le=1,
        description="fall of the share of far answers kept, since the last retrain, from which another retrain is due",
    )
    capability_floor: float = Field(
        Cadence.capability_floor, ge=0, le=1, description="capability, as a share of the base's, under which a retrain is due"
    )
    few: int = Field(Cadence.few, ge=1, description="new edits since the last retrain from which these figures make another due")
    minors: int = Field(
        Cadence.minors,
        ge=0,
        description="minor retrains in a row, from the head's tensors, before a major retrain, from the base",
    )
    minor_drift: float = Field(
        Cadence.minor_drift,
        gt=0,
        le=1,
        description="share of the far answers that minor retrains may change together before a major retrain",
    )
    major_every_s: float = Field(
        Cadence.major_every_s, gt=0, description="seconds after which a major retrain is due if an edit came since the last"
    )
    retry_s: float = Field(
        Cadence.retry_s,
        gt=0,
        description="seconds before another retrain is due by itself after one that failed, was refused or was cancelled; doubled"
        " with each further such retrain, up to age_s, until a retrain is published",
    )
    retrain_losses: float = Field(
        AcceptanceLimits.retrain_losses,
        ge=0,
        le=1,
        description="share of the answered edits that a retrain may lose; it may always lose one",
    )
    monitor_s: float = Field(60.0, gt=0, description="seconds between two rounds of the monitor")
    monitor_sample: int = Field(64, ge=1, description="live edits asked in one round; the edits take turns")
    near_loss: float = Field(
        AcceptanceLimits.near_loss,
        ge=0,
        le=1,
        description="share of the known answers near new edits, to their own prompts about other subjects, that may change",
    )
    same_subject_loss: float = Field(
        AcceptanceLimits.same_subject_loss,
        ge=0,
        le=1,
        description="share of the other known answers about new edits' subjects that may change",
    )
    far_fall: float = Field(
        AcceptanceLimits.far_fall,
        ge=0,
        le=1,
        description="share of the known answers far from any edit that may change for each edit that a publication adds",
    )
    far_loss: float = Field(
        AcceptanceLimits.far_loss, ge=0, le=1, description="share of the same that all live edits together may change"
    )
    prose_divergence: float = Field(
        AcceptanceLimits.prose_divergence,
        ge=0,
        description="KL(base ‖ version) in nats a token of prose to which all live edits together may come",
    )
    retrain_fall: float = Field(
        AcceptanceLimits.retrain_fall,
        ge=0,
        le=1,
        description="share of the far answers that a retrain may change, besides those allowed to its new edits",
    )
    firmer: int = Field(
        1,
        ge=0,
        le=2,
        description="further fits in the same job of an edit that would cost the rest of the model too much, with the rest held"
        " more firmly each time, before the edit is deferred",
    )

    context: ContextMode = Field(
        ContextTier.mode,
        description="accepted edits that stand in front of the prompts that they are about while no version carries them: none;"
        " `deferred`: those that a fit or a retrain has put off; `on`: all that are not live yet",
    )
    context_edits: int = Field(ContextTier.most, ge=1, le=1_000, description="most edits that one version states so, the newest")

    def tier(self) -> ContextTier:
        """The settings as the domain's ContextTier."""
        return ContextTier(mode=self.context, most=self.context_edits)

    def cadence(self, *, automatic: bool) -> Cadence:
        """The settings as the domain's Cadence."""
        shared = {name: getattr(self, name) for name in Cadence.__dataclass_fields__ if name != "automatic"}
        return Cadence(automatic=automatic, **shared)

    def acceptance(self) -> AcceptanceLimits:
        """The settings as the domain's AcceptanceLimits."""
        return AcceptanceLimits(**{name: getattr(self, name) for name in AcceptanceLimits.__dataclass_fields__})

    @model_validator(mode="before")
    @classmethod
    def _fill_from_strategy(cls, values: Any) -> Any:
        return STRATEGIES.get(str(values.get("strategy")), {}) | values if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _check_soft_and_hard(self) -> Self:
        if self.soft > self.hard:
            raise ValueError("soft must not be larger than hard")
        return self


class RetentionSettings(SettingsGroup):
    """The versions that keep their checkpoint, besides the head, its ancestors in use and pinned versions."""

    keep_last: int = Field(100, ge=2, description="latest versions kept")
    keep_every: int = Field(100, ge=1, description="every n-th version kept for good")
    trash_days: float = Field(
        7.0, ge=0, description="days that the checkpoint of a collected version stays in `checkpoints/trash` before it is deleted"
    )


class ReservoirSettings(SettingsGroup):
    """A sample of real prompts, whose answers retrains keep. Off by default."""

    size: int = Field(
        0,
        ge=0,
        le=100_000,
        description="prompts of `/generate` stored word for word in the database, a uniform sample of all; retrains keep the"
        " base's answers to them; 0: no prompt is stored, and prompts stored before are removed at the next start",
    )
    callers: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")], ...] = Field(
        (),
        description="callers whose prompts are stored: a `POST /generate` names its caller in the header `X-Errata-Caller`; "
        "needed where size is not 0; no other prompt is stored",
    )

    @model_validator(mode="after")
    def _check_callers(self) -> Self:
        if self.size and not self.callers:
            raise ValueError(
                'callers must name the callers whose prompts are stored where size is not 0, for example ["support-desk"]'
            )
        return self


class SettingsWithoutMethods(BaseSettings):
    """All settings but those of the editing methods."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        env_ignore_empty=True,  # a variable without a value, as compose files and units make it, leaves the default
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on")
    health_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="port of a listener for health checks alone, which hardly waits for a flood of clients; empty: none",
    )
    allow_public_bind: bool = Field(False, description="listen on more than this machine, although there are no keys yet")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="names and addresses, separated by commas, by which clients reach the server, besides `localhost`,"
        " `127.0.0.1` and `[::1]`; without a port: on every port; other `Host` headers are refused; needed where the server"
        " listens on more than this machine; `*`: any, which leaves the server open to DNS rebinding",
    )
    data_dir: Path = Field(Path("var"), description="folder of the SQLite file, the checkpoints and the neutral sentences")
    database_url: SecretStr | None = Field(None, description="sqlite:///… or postgresql://…; default: a SQLite file in data_dir")
    redis_url: SecretStr | None = Field(None, description="redis://…; default: the buffer is in this process")
    redis_prefix: str = Field("errata", min_length=1, max_length=100, description="prefix of this server's keys in Redis")
    model: str = Field(
        "atlas",
        min_length=1,
        description="`atlas` (embedded), a local folder, a GGUF file, a name of `errata models list`, or on Hugging Face"
        " ORG/NAME or ORG/NAME@revision",
    )
    models_dir: Path | None = Field(
        None,
        description="folder of the models that `errata models get` and GGUF files become; default: `errata/models` in the user's"
        " cache folder (`$XDG_CACHE_HOME`, else `~/.cache`)",
    )
    hub: bool = Field(
        True, description="whether a model may be asked of Hugging Face; false: only its cache on this machine is looked into"
    )
    method: MethodName = Field(
        AUTO,
        description="method of edits that name none; auto: live at once, consolidated by retrains; an incremental method: live at"
        " once, and a retrain is made on request only; a consolidating method: live after the next retrain, which is by it",
    )
    incremental_method: IncrementalName = Field(DEFAULT_INCREMENTAL, description="method that makes edits live at once")
    consolidating_method: ConsolidatingName = Field(
        DEFAULT_CONSOLIDATING, description="method of a retrain for which neither its request nor an edit names one"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:0 …")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="of the base model, chosen once for a store; auto: bfloat16 on cuda; on the CPU bfloat16 where a large model"
        " is clearly faster in it, else float32",
    )
    torch_threads: int | Literal["auto"] = Field(
        "auto",
        description="CPU threads of one tensor operation, 1 to 256, kept with the store; auto: at the first start of a store all"
        " CPUs that may be used, 8 at most, where a large model is clearly faster on them, else 1",
    )
    capability_file: Path | None = Field(
        None, description="JSON lines of capability tasks; default: the embedded model's skills, else none"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe log lines written")
    frozen_s: float = Field(
        0,
        ge=0,
        description="seconds of a blocked event loop after which the process writes its stacks to stderr and ends, for its"
        " supervisor to start it again; 0: never",
    )
    fault_point: str | None = Field(None, description="tests only: the point at which the process kills itself")

    limits: Limits = Limits()
    generation: GenerationSettings = GenerationSettings()
    window: WindowSettings = WindowSettings()
    retention: RetentionSettings = RetentionSettings()
    export: ExportSettings = ExportSettings()
    reservoir: ReservoirSettings = ReservoirSettings()
    neutral: NeutralSettings = NeutralSettings()

    @field_validator("torch_threads", mode="before")
    @classmethod
    def _check_torch_threads(cls, threads: Any) -> Any:
        if threads == "auto":
            return threads
        try:
            count = int(threads)
        except (TypeError, ValueError):
            count = 0
        if not 1 <= count <= MAX_TORCH_THREADS:
            raise ValueError(f"must be auto, or a number from 1 to {MAX_TORCH_THREADS}")
        return count

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, url: SecretStr | None) -> SecretStr | None:
        return _check_url(
            url, ("sqlite", "postgresql", "postgresql+psycopg"), "postgresql://user@host/database or sqlite:////folder/file.db"
        )

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, url: SecretStr | None) -> SecretStr | None:
        return _check_url(url, ("redis", "rediss", "unix"), "redis://host:6379/0")

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, hosts: Any) -> Any:
        return _parse_list(hosts) if isinstance(hosts, str) else hosts

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        bracketed = tuple(f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host for host in hosts)
        if not all(host == ANY_HOST or Host.of(host) for host in bracketed):
            raise ValueError(
                "must be names or addresses as in a Host header, such as errata.example, errata.example:8443, 10.0.0.5"
                " or [fd00::5]: no scheme, no path, no pattern; or * for any"
            )
        return bracketed

    @model_validator(mode="after")
    def _check_health_port(self) -> Self:
        if self.health_port and self.health_port == self.port:
            raise ValueError("health_port must be another port than port; leave it empty for none")
        return self

    @model_validator(mode="after")
    def _check_public_bind(self) -> Self:
        if not self.is_loopback_only and not self.allow_public_bind:
            raise ValueError(
                "host must be a loopback address: there are no keys yet, and anybody who reaches the port may change the model;"
                " to listen elsewhere, give --allow-public-bind or ERRATA_ALLOW_PUBLIC_BIND=true"
            )
        if not self.is_loopback_only and not self.allowed_hosts:
            raise ValueError(
                "allowed_hosts must name the hosts by which clients reach a server that listens on more than this machine:"
                " give --allowed-host errata.example, once for each, or ERRATA_ALLOWED_HOSTS=errata.example,10.0.0.5"
            )
        return self

    @model_validator(mode="after")
    def _check_method(self) -> Self:
        if self.method in names_of("incremental") and self.method != self.incremental_method:
            raise ValueError("method names an incremental method other than incremental_method: give both the same name")
        return self

    @property
    def default_method(self) -> str:
        """The method of edits that name none: the consolidating one under the strategies without an incremental method."""
        return self.method if self.window.strategy == "compaction" else self.consolidating_method

    @property
    def cadence(self) -> Cadence:
        """When retrains are due."""
        return self.window.cadence(automatic=self.default_method != self.incremental_method)

    @property
    def asked_dtype(self) -> str | None:
        """The dtype that was asked for; None: auto."""
        return None if self.dtype == "auto" else self.dtype

    @property
    def asked_threads(self) -> int | None:
        """The number of threads that was asked for; None: auto."""
        return None if self.torch_threads == "auto" else self.torch_threads

    @property
    def is_loopback_only(self) -> bool:
        """Whether only this machine can reach the port."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def checkpoints(self) -> CheckpointStore:
        """Where the checkpoints are kept: a folder in the data folder."""
        return CheckpointFolder(self.data_dir.resolve() / "checkpoints")

    @property
    def models_folder(self) -> Path:
        """The folder of the models that are made on this machine. Raises Refused if neither it nor a home folder is known."""
        if self.models_dir is not None:
            return self.models_dir.expanduser().resolve()
        given = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        try:
            return given.expanduser().resolve() / "errata" / "models"
        except RuntimeError:
            raise Refused("models_dir: there is no home folder, so a folder must be given", field="models_dir") from None

    @property
    def store_url(self) -> str:
        """The database's URL with its password: for the store, never for a message."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir.resolve() / 'errata.db'}"

    @property
    def buffer_url(self) -> str | None:
        """Redis' URL with its password, or None for the buffer in this process."""
        return None if self.redis_url is None else self.redis_url.get_secret_value()


def _with_methods(settings: type[SettingsWithoutMethods]) -> type[SettingsWithoutMethods]:
    """The settings with one group for each editing method. Raises Refused if a method has the name of another setting."""
    for name in list_methods():
        if name in settings.model_fields:
            raise Refused(f"An editing method cannot have the name {name}: a setting has it.")
    groups: dict[str, Any] = {name: (method.settings, method.settings()) for name, method in list_methods().items()}
    return create_model("SettingsOfMethods", __base__=settings, __module__=__name__, **groups)


if TYPE_CHECKING:
    _SettingsOfMethods = SettingsWithoutMethods
else:
    _SettingsOfMethods = _with_methods(SettingsWithoutMethods)


class Settings(_SettingsOfMethods):
    """All settings: frozen, without unknown names, made by `load_settings`. Each editing method has a group with its name."""

    def of_method(self, kind: type[MethodSettings]) -> MethodSettings:
        """The settings of the editing method whose settings are of this class."""
        settings: MethodSettings = getattr(self, find_method_of(kind).name)
        return settings


def load_settings(**overrides: Any) -> Settings:
    """The settings of the environment, overridden by `overrides` (an entry that is None counts as not given).

    Raises Refused with one sentence a fault; each sentence names the setting and none repeats its value.
    """
    refuse_unknown_variables(os.environ)
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise Refused("; ".join(_sentence(fault) for fault in error.errors(include_input=False, include_url=False))) from None


def refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    """Raise Refused, with the nearest known name, if a variable starts with ERRATA_ and is no setting."""
    known = set(variable_names())
    for name in sorted(environment):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            nearest = difflib.get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.0)
            raise Refused(f"{name} is not a setting; the nearest one is {nearest[0]}", field=name)


def environment_without_settings() -> dict[str, str]:
    """This process' environment without ERRATA_*, except where models are: for a local server that must not use the configured
    database.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(PREFIX) or name.upper() in MODEL_VARIABLES
    }


def environment_of(settings: Settings) -> dict[str, str]:
    """This process' environment with ERRATA_* such that `load_settings` gives these settings: for a child process."""
    variables = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):  # defaults follow from the given fields, in the child as here
            variables[name] = value.model_dump_json(exclude_unset=True)
        elif isinstance(value, SecretStr):
            variables[name] = value.get_secret_value()
        elif value is not None:
            variables[name] = json.dumps(value) if isinstance(value, tuple | bool) else str(value)
    return environment_without_settings() | {f"{PREFIX}{name.upper()}": value for name, value in variables.items()}


def variable_names(model: type[BaseModel] = Settings, prefix: str = PREFIX) -> Iterator[str]:
    """The name of every environment variable of a setting or a group, old names of settings included."""
    for name in getattr(model, "renamed", {}):
        yield f"{prefix}{name.upper()}"
    for name, field in model.model_fields.items():
        yield f"{prefix}{name.upper()}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from variable_names(field.annotation, f"{prefix}{name.upper()}{DELIMITER}")


def mask_password(url: str) -> str:
    """A URL for display: without its password and without its query, which may hold a password too."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    netloc = f"{name}{':***' if colon else ''}{at}{host}"
    return f"{parts.scheme}://{netloc}{parts.path}"


def _parse_list(text: str) -> Any:
    """The parts of a list in a variable: a JSON list, or texts separated by commas."""
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    return parsed if isinstance(parsed, list) else [part.strip() for part in text.split(",") if part.strip()]


def _check_url(url: SecretStr | None, schemes: tuple[str, ...], example: str) -> SecretStr | None:
    if url is None:
        return None
    text = url.get_secret_value()
    scheme, colon, _ = text.partition("://")
    if scheme not in schemes or not colon:
        raise ValueError(f"must be a URL that starts with one of {', '.join(f'{name}://' for name in schemes)}")
    try:
        parts = urlsplit(text)
        if "redis" in schemes:
            _ = parts.port
        elif make_url(text).host and scheme == "sqlite":
            raise ValueError
    except (ValueError, ArgumentError):  # the error's message may hold the password
        raise ValueError(f"must be a well-formed URL such as {example}") from None
    return url


def _sentence(fault: Any) -> str:
    """One validation error as `setting: message`, without the value."""
    name = ".".join(str(part) for part in fault["loc"])
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(name, sorted(Settings.model_fields), n=1, cutoff=0.0)
        return f"{name} is not a setting; the nearest one is {nearest[0]}"
    return f"{name}: {message}" if name else message
