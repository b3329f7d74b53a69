"""`errata doctor`: what is configured, reachable and missing. It changes nothing but a temporary file."""

import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from service.atlas import weights_path
from service.domain.arithmetic import keep_pinned
from service.domain.errors import ServiceError
from service.domain.version import Head
from service.lifecycle import store_identity
from service.models.cache import find
from service.models.catalogue import PACKAGED
from service.models.hub import parse_reference
from service.runtime.sockets import bind_port
from service.settings import Settings, mask_password
from service.store.connection_errors import explain_connection_error
from service.store.database import Store
from service.store.migrate import is_current

TIMEOUT_S = 3
ARITHMETIC = "arithmetic"
ENOUGH_BYTES = 500_000_000  # a hundred checkpoints of the embedded model, its neutral sentences and the database


class CheckStatus(StrEnum):
    """The state of a part."""

    OK = "ok"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """One part, its state, and a detail: advice if the state is bad."""

    part: str
    verdict: CheckStatus
    detail: str

    @property
    def is_fatal(self) -> bool:
        """Whether the server cannot start with this part."""
        return self.verdict is CheckStatus.BAD


def check_all(settings: Settings) -> list[Finding]:
    """Check every part that the server needs. A finding never holds a password."""
    checks: tuple[Callable[[Settings], Finding], ...] = (_model, _data_dir, _disk, _database, _store, _arithmetic)
    return [check(settings) for check in (*checks, _buffer, _port, _health_port, _device)]


def print_findings(findings: Iterable[Finding]) -> None:
    """Print the findings as a table."""
    table = Table(box=None, show_header=False, padding=(0, 1))
    marks = {CheckStatus.OK: "[green]✓[/green]", CheckStatus.NOTE: "[yellow]·[/yellow]", CheckStatus.BAD: "[red]✗[/red]"}
    for finding in findings:
        table.add_row(marks[finding.verdict], finding.part, finding.detail)
    Console(soft_wrap=True, highlight=False).print(table)


def _model(settings: Settings) -> Finding:
    folder = weights_path() if settings.model == "atlas" else Path(settings.model).expanduser()
    if not folder.exists():
        if settings.model == "atlas":
            return Finding(
                "model",
                CheckStatus.BAD,
                "the embedded model's weights are not installed; train them: python -m service.atlas.training.train",
            )
        return _named_model(settings)
    if folder.is_file():
        return Finding("model", CheckStatus.OK, f"{settings.model}: a file, which is checked and converted at the first start")
    return _model_folder(settings, folder)


def _model_folder(settings: Settings, folder: Path) -> Finding:
    from service.runtime.model_check import describe_model  # here, because the other findings need not wait for transformers

    try:
        described = describe_model(folder, settings)
    except ServiceError as error:
        return Finding("model", CheckStatus.BAD, f"{settings.model}: {error.message}")
    return Finding("model", CheckStatus.OK, f"{settings.model}: {described}")


def _named_model(settings: Settings) -> Finding:
    """A model that is no folder and no file here."""
    try:
        cached = find(settings.models_folder, settings.model)
    except ServiceError as error:
        return Finding("model", CheckStatus.BAD, error.message)
    if cached is not None:
        return _model_folder(settings, cached.folder)
    if settings.model in PACKAGED:
        return Finding("model", CheckStatus.BAD, f"{settings.model} is not here yet: run errata models get {settings.model}")
    if parse_reference(settings.model) is None:
        return Finding("model", CheckStatus.BAD, f"{settings.model}: no such folder or file, and no name such as ORG/NAME")
    where = "on Hugging Face" if settings.hub else "in the cache of Hugging Face, because ERRATA_HUB is false,"
    return Finding("model", CheckStatus.NOTE, f"{settings.model}: no such folder, so the name is looked up {where} at the start")


def _data_dir(settings: Settings) -> Finding:
    folder = settings.data_dir.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding("data folder", CheckStatus.BAD, f"{folder} cannot be written: {error.strerror}")
    return Finding("data folder", CheckStatus.OK, str(folder))


def _disk(settings: Settings) -> Finding:
    folder = next(parent for parent in (settings.data_dir.resolve(), *settings.data_dir.resolve().parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    verdict = CheckStatus.OK if free > ENOUGH_BYTES else CheckStatus.NOTE
    return Finding("disk", verdict, f"{free / 1e9:.1f} GB free")


def _database(settings: Settings) -> Finding:
    url = sa.make_url(settings.store_url)
    url_shown = mask_password(settings.store_url)
    if url.get_backend_name() == "sqlite":
        is_there = Path(url.database or "").exists()
        return Finding(
            "database",
            CheckStatus.OK if is_there else CheckStatus.NOTE,
            url_shown + ("" if is_there else " (made at the first start)"),
        )
    try:
        engine = sa.create_engine(url.set(drivername="postgresql+psycopg"), connect_args={"connect_timeout": TIMEOUT_S})
    except ImportError:
        advice = "Postgres is configured, and its driver is not installed: pip install 'errata-server[postgres]'"
        return Finding("database", CheckStatus.BAD, advice)
    try:
        with engine.connect() as connection:
            migrated = is_current(connection)
    except sa.exc.SQLAlchemyError as error:
        cause = (
            explain_connection_error(getattr(error, "orig", None))
            or "it does not answer; check ERRATA_DATABASE_URL and that Postgres runs"
        )
        return Finding("database", CheckStatus.BAD, f"{url_shown}: {cause}")
    except ServiceError as error:
        return Finding("database", CheckStatus.BAD, f"{url_shown}: {error.message}")
    finally:
        engine.dispose()
    return Finding(
        "database",
        CheckStatus.OK if migrated else CheckStatus.NOTE,
        url_shown + ("" if migrated else " (migrated at the next start)"),
    )


def _store(settings: Settings) -> Finding:
    """Whether the database and the data folder belong to one store."""
    store = Store(settings.store_url)
    try:
        if store.is_sqlite and not Path(store.url.database or "").is_file():
            name = settings.checkpoints.read_mark()
            lost = "the folder belongs to a store, and its database is not there: restore it, or give another data_dir"
            return Finding("store", CheckStatus.OK, "new") if name is None else Finding("store", CheckStatus.BAD, lost)
        with store.read() as connection:
            if not is_current(connection):
                return Finding("store", CheckStatus.NOTE, "unknown until the database is migrated")
        store_identity.check_same_store(store, settings.checkpoints)
        pinned = store_identity.read_pinned(store)
    except ServiceError as error:
        return Finding("store", CheckStatus.BAD, error.message)
    finally:
        store.close()
    belongs = "database and data folder belong together"
    if pinned is not None and pinned.base_name.partition("@")[0] != settings.model.partition("@")[0]:
        other = f"it was made with the base model {pinned.base_name}, and a start refuses {settings.model} if it is another one"
        return Finding("store", CheckStatus.NOTE, f"{belongs}; {other}")
    return Finding("store", CheckStatus.OK, f"{belongs}; whether the base model's weights are the store's, a start finds out")


def _arithmetic(settings: Settings) -> Finding:
    """The dtype and the threads, which the store keeps from its first start on."""
    asked = f"dtype {settings.dtype}, torch_threads {settings.torch_threads}"
    store = Store(settings.store_url)
    try:
        if store.is_sqlite and not Path(store.url.database or "").is_file():
            return Finding(ARITHMETIC, CheckStatus.OK, f"{asked}: chosen at the first start")
        with store.read() as connection:
            if not is_current(connection):
                return Finding(ARITHMETIC, CheckStatus.NOTE, "unknown until the database is migrated")
        return _describe(store_identity.read_pinned(store), settings, asked)
    except ServiceError as error:
        return Finding(ARITHMETIC, CheckStatus.BAD, error.message)
    finally:
        store.close()


def _describe(pinned: Head | None, settings: Settings, asked: str) -> Finding:
    """The arithmetic under the settings. Raises Conflict for another dtype than the store's."""
    if pinned is None or pinned.arithmetic is None:
        return Finding(ARITHMETIC, CheckStatus.OK, f"{asked}: chosen at the next start")
    chosen = keep_pinned(pinned.arithmetic, dtype=settings.asked_dtype, threads=settings.asked_threads)
    return Finding(
        ARITHMETIC,
        CheckStatus.OK,
        f"{chosen.dtype} ({chosen.dtype_reason}), torch_threads {chosen.threads} ({chosen.threads_reason})",
    )


def _buffer(settings: Settings) -> Finding:
    if settings.buffer_url is None:
        return Finding("buffer", CheckStatus.OK, "in the server's process")
    url_shown = mask_password(settings.buffer_url)
    try:
        import redis  # an extra of the package
    except ImportError:
        return Finding(
            "buffer", CheckStatus.BAD, "Redis is configured, and its client is not installed: pip install 'errata-server[redis]'"
        )
    client = redis.Redis.from_url(settings.buffer_url, socket_connect_timeout=TIMEOUT_S, socket_timeout=TIMEOUT_S)
    try:
        client.ping()
    except redis.RedisError:
        return Finding(
            "buffer", CheckStatus.NOTE, f"{url_shown} does not answer; edits are still found, within seconds instead of at once"
        )
    finally:
        client.close()
    return Finding("buffer", CheckStatus.OK, url_shown)


def _port(settings: Settings) -> Finding:
    return _check_port("port", settings.host, settings.port, "--port")


def _health_port(settings: Settings) -> Finding:
    if settings.health_port is None:
        return Finding("health port", CheckStatus.OK, "none: health checks are answered on the port of the clients")
    return _check_port("health port", settings.host, settings.health_port, "ERRATA_HEALTH_PORT")


def _check_port(part: str, host: str, port: int, option: str) -> Finding:
    try:
        with bind_port(host, port, option):
            pass
    except ServiceError as error:
        return Finding(part, CheckStatus.NOTE, error.message)
    return Finding(part, CheckStatus.OK, f"{host}:{port} is free")


def _device(settings: Settings) -> Finding:
    import torch  # here, because the other findings need not wait for it

    hardware = f"cuda: {torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else "cpu only"
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        return Finding("device", CheckStatus.BAD, "ERRATA_DEVICE names cuda, and torch finds no cuda device")
    return Finding("device", CheckStatus.OK, f"{settings.device}; {hardware}; torch {torch.__version__}")
