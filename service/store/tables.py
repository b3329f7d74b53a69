"""The tables for SQLite and Postgres. Invariants are constraints wherever a database can check them."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import Dialect

from service.domain.edit import EditStatus
from service.domain.liveset import Carrier, Role
from service.domain.version import VersionStatus

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
JOB_KINDS = ("apply", "refit", "retrain", "export")
JOB_STATUSES = ("queued", "running", "done", "failed", "cancelled")
ACTIVE = "status IN ('queued', 'running')"
EVAL_STATUSES = ("queued", "running", "done", "failed", "cancelled")
RETRAIN_MODES = ("minor", "major")
DTYPES = ("float32", "bfloat16", "float16")
ACCEPTS = ("judged", "anyway")
SCOPES = ("auto", "subject", "always")
MEASURED_BY = ("gate", "monitor")  # `gate`: at the acceptance, before the publication


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """A time in UTC. SQLite stores no zone, so reading adds it."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def one_of(column: str, values: Any) -> sa.CheckConstraint:
    """A constraint: the column holds one of the values."""
    words = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({words})", name=column)


def is_name(column: str) -> sa.CheckConstraint:
    """A constraint: the column holds a name, 1 to 16 lower-case letters, digits and underscores, a letter first."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    rule = (
        f"length({column}) BETWEEN 1 AND 16 AND rtrim({column}, '{letters}0123456789_') = ''"
        f" AND ltrim(substr({column}, 1, 1), '{letters}') = ''"
    )
    return sa.CheckConstraint(rule, name=column)


metadata = sa.MetaData(naming_convention=NAMING)

head = sa.Table(
    "head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("store_id", sa.String(36)),  # by which a data folder recognises its database; null until a server has opened both
    sa.Column("base_fingerprint", sa.Text, nullable=False),
    sa.Column("base_name", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("latest_version", sa.BigInteger, nullable=False),
    sa.Column("next_seq", sa.BigInteger, nullable=False),
    sa.Column("next_event", sa.BigInteger, nullable=False),
    sa.Column("fence", sa.BigInteger, nullable=False),
    sa.Column("lease_owner", sa.Text),
    sa.Column("lease_until_s", sa.Float(53), nullable=False),  # seconds since 1970 by the database's own clock
    sa.Column("dtype", sa.String(16)),  # of the base; with the next three null until a server has chosen them
    sa.Column("dtype_reason", sa.Text),
    sa.Column("torch_threads", sa.Integer),
    sa.Column("torch_threads_reason", sa.Text),
    sa.CheckConstraint("id = 1", name="one_row"),
    one_of("dtype", DTYPES),
    sa.CheckConstraint("torch_threads BETWEEN 1 AND 256", name="torch_threads"),
    sa.CheckConstraint("(dtype IS NULL) = (torch_threads IS NULL)", name="arithmetic"),
)

former_bases = sa.Table(
    "former_bases",  # the bases that the store had before the head row's one
    metadata,
    sa.Column("until", sa.BigInteger, primary_key=True, autoincrement=False),  # the first version of the base that followed
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
)

edits = sa.Table(
    "edits",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False, unique=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("subject", sa.Text),
    sa.Column("relation", sa.Text),
    sa.Column("ground_truth", sa.Text),
    sa.Column("conflict_key", sa.Text),
    sa.Column("key_digest", sa.String(64), nullable=False),  # SHA-256 of the conflict key: a key may be too long for an index
    sa.Column("method", sa.String(16), nullable=False),  # a name that the registry of methods knew when the row was written
    sa.Column("surfaces", sa.JSON, nullable=False),
    sa.Column("probes", sa.JSON, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("applied_at", UtcDateTime),
    sa.Column("version", sa.BigInteger),
    sa.Column("report", sa.JSON(none_as_null=True)),
    sa.Column("scores_due", sa.Boolean, nullable=False),
    sa.Column("supersedes", sa.String(36)),
    sa.Column("superseded_by", sa.String(36)),
    sa.Column("error", sa.Text),
    sa.Column("retract_asked_at", UtcDateTime),  # set while the edit is still live: a refit removes it
    sa.Column("retracted_by", sa.Text),
    sa.Column("restore_previous", sa.Boolean, nullable=False),
    sa.Column("tokens", sa.Integer, nullable=False, server_default="0"),  # tokens of its fit; 0: not counted
    sa.Column("deferral", sa.JSON(none_as_null=True)),  # the last one; null: none, or by an earlier release
    sa.Column("accept", sa.String(8), nullable=False, server_default="judged"),
    sa.Column("accepted_anyway", sa.Boolean, nullable=False, server_default=sa.false()),  # although acceptance refused it
    sa.Column("scope", sa.String(8), nullable=False, server_default="auto"),
    sa.Column("aliases", sa.JSON, nullable=False, server_default="[]"),  # other names of the subject
    one_of("status", EditStatus),
    is_name("method"),
    one_of("accept", ACCEPTS),
    one_of("scope", SCOPES),
    sa.CheckConstraint("status NOT IN ('applied', 'consolidated') OR version IS NOT NULL", name="live_has_version"),
    sa.CheckConstraint("status <> 'superseded' OR superseded_by IS NOT NULL", name="superseded_by_whom"),
    sa.CheckConstraint("status <> 'failed' OR error IS NOT NULL", name="failed_says_why"),
    sa.CheckConstraint("status <> 'retracted' OR retract_asked_at IS NOT NULL", name="retracted_was_asked"),
    sa.CheckConstraint("retract_asked_at IS NULL OR retracted_by IS NOT NULL", name="retracted_by_whom"),
    sa.Index("ix_edits_status_seq", "status", "seq"),
    sa.Index("ix_edits_key_digest_seq", "key_digest", "seq"),
    # Few edits of many have a value, and the worker searches for them about every second.
    sa.Index(
        "ix_edits_retract_asked_at",
        "retract_asked_at",
        sqlite_where=sa.text("retract_asked_at IS NOT NULL"),
        postgresql_where=sa.text("retract_asked_at IS NOT NULL"),
    ),
    sa.Index(
        "ix_edits_accepted_anyway",
        "seq",
        sqlite_where=sa.text("accepted_anyway = 1"),
        postgresql_where=sa.text("accepted_anyway"),
    ),
    sa.Index("ix_edits_scores_due", "seq", sqlite_where=sa.text("scores_due = 1"), postgresql_where=sa.text("scores_due")),
)

edit_transitions = sa.Table(
    "edit_transitions",  # read by the trigger on edits.status
    metadata,
    sa.Column("from_status", sa.String(16), primary_key=True),
    sa.Column("to_status", sa.String(16), primary_key=True),
)

versions = sa.Table(
    "versions",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("parent", sa.BigInteger),
    sa.Column("restores", sa.BigInteger),
    sa.Column("digest", sa.String(64)),
    sa.Column("scores", sa.JSON, nullable=False),
    sa.Column("edits_counted", sa.Integer, nullable=False),
    sa.Column("window_count", sa.Integer, nullable=False),
    sa.Column("fence", sa.BigInteger),
    sa.Column("job_id", sa.String(36)),
    sa.Column("pinned", sa.Boolean, nullable=False),
    sa.Column(
        "root", sa.BigInteger, nullable=False
    ),  # the version with complete rows; this version's own rows are changes to them
    sa.Column("minors", sa.Integer, nullable=False),  # minor retrains in its tensors since the last major one
    sa.Column("major_at", UtcDateTime),  # when its tensors were last trained from the base; null: never
    sa.Column("neutral_sentences", sa.Integer),  # that its fit might use, the first of all; null: all, or no fit
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("created_at", UtcDateTime, nullable=False),
    is_name("kind"),
    one_of("status", (VersionStatus.PUBLISHED, VersionStatus.CORRUPT, VersionStatus.COLLECTED)),
    sa.CheckConstraint("number = 0 OR parent IS NOT NULL", name="has_parent"),
    sa.CheckConstraint("parent IS NULL OR parent < number", name="after_parent"),
    sa.Index("ix_versions_digest", "digest"),
)

version_edits = sa.Table(
    "version_edits",
    metadata,
    sa.Column("version", sa.BigInteger, sa.ForeignKey("versions.number"), primary_key=True),
    sa.Column("edit_id", sa.String(36), sa.ForeignKey("edits.id"), primary_key=True),
    sa.Column("carrier", sa.String(8), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("held", sa.Boolean, nullable=False),
    sa.Column("answer", sa.Text),
    sa.Column("present", sa.Boolean, nullable=False),  # false: the root has the item and this version does not
    one_of("carrier", Carrier),
    one_of("role", Role),
    sa.CheckConstraint("role <> 'tombstone' OR answer IS NOT NULL", name="tombstone_has_answer"),
    # A purge searches an edit in all versions, and the foreign key searches each deleted edit once more.
    sa.Index("ix_version_edits_edit_id", "edit_id"),
)

alias_moves = sa.Table(
    "alias_moves",  # the last move of a name says which version it names now
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),  # in order of commit
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("version", sa.BigInteger, sa.ForeignKey("versions.number")),  # null: the name was removed
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Index("ix_alias_moves_name_number", "name", "number"),
)

stated_edits = sa.Table(
    "stated_edits",  # edits that a version puts in front of the prompts that they are about, as its overlay does not carry them
    metadata,
    sa.Column("version", sa.BigInteger, sa.ForeignKey("versions.number"), primary_key=True, autoincrement=False),
    sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),  # in order of submission
    sa.Column("edit_id", sa.String(36), sa.ForeignKey("edits.id"), nullable=False),
    sa.Column(
        "withdrawn", sa.Boolean, nullable=False
    ),  # a rollback took it back: it is not stated, and is not to be stated again
    sa.Index("ix_stated_edits_edit_id", "edit_id"),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("mode", sa.String(8)),  # of a retrain
    sa.Column("method", sa.String(16)),  # of a retrain
    sa.Column("request", sa.JSON(none_as_null=True)),  # of an export
    sa.Column("result", sa.JSON(none_as_null=True)),  # its result beside the version
    sa.Column("log", sa.JSON, nullable=False),  # [{at, message}], without texts of edits
    sa.Column("cancel_asked_at", UtcDateTime),
    sa.Column("cancelled_by", sa.Text),
    sa.Column("retry_at", UtcDateTime),  # between two attempts
    sa.Column("edit_ids", sa.JSON, nullable=False),
    sa.Column("parent", sa.BigInteger),
    sa.Column("seed", sa.BigInteger),
    sa.Column("neutral_sentences", sa.Integer),  # that its fits may use, the first of all; null: all, or not chosen yet
    sa.Column("claims", sa.Integer, nullable=False),  # how often a worker claimed it
    sa.Column("failures", sa.Integer, nullable=False),  # how often its fit failed
    sa.Column("progress", sa.Float(53), nullable=False),
    sa.Column("stage", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("version", sa.BigInteger),
    sa.Column("fence", sa.BigInteger),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("started_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    one_of("kind", JOB_KINDS),
    one_of("status", JOB_STATUSES),
    one_of("mode", RETRAIN_MODES),
    is_name("method"),
    sa.CheckConstraint("status <> 'failed' OR error IS NOT NULL", name="failed_says_why"),
    # At most one job of a kind is queued and one is running.
    sa.Index(
        "uq_jobs_active",
        "kind",
        "status",
        unique=True,
        sqlite_where=sa.text(ACTIVE),
        postgresql_where=sa.text(ACTIVE),
    ),
    sa.Index("ix_jobs_created_at", "created_at"),
    # The last job of a kind is read three times an edit.
    sa.Index("ix_jobs_kind_created_at_id", "kind", "created_at", "id"),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),  # gapless, in order of commit
    sa.Column("type", sa.String(64), nullable=False),
    sa.Column("edit_id", sa.String(36)),
    sa.Column("version", sa.BigInteger),
    sa.Column("job_id", sa.String(36)),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Index("ix_events_edit_id", "edit_id"),
)

head_history = sa.Table(
    "head_history",
    metadata,
    sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("from_version", sa.BigInteger, nullable=False),
    sa.Column("to_version", sa.BigInteger, nullable=False, unique=True),
    sa.Column("reason", sa.Text),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("author", sa.String(255), primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("call", sa.String(16), nullable=False, server_default="edits"),  # the call of its first request
    sa.Column("body_hash", sa.String(64), nullable=False),
    sa.Column("answer", sa.JSON, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

evals = sa.Table(
    "evals",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("about", sa.JSON, nullable=False),  # the request in short, for lists
    sa.Column("request", sa.JSON, nullable=False),
    sa.Column("result", sa.JSON(none_as_null=True)),
    sa.Column("error", sa.Text),
    sa.Column("outcomes", sa.JSON(none_as_null=True)),  # by question, for comparisons
    sa.Column("progress", sa.Float(53), nullable=False),
    sa.Column("author", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("started_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    sa.Column("cancel_asked_at", UtcDateTime),
    one_of("status", EVAL_STATUSES),
    sa.Index("ix_evals_status_created_at", "status", "created_at"),
    sa.Index("ix_evals_version_created_at", "version", "created_at"),
)

measurements = sa.Table(
    "measurements",  # figures of versions from acceptance and the monitor, one row a figure
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("name", sa.String(32), nullable=False),  # a name of `measurements.NAMES`
    sa.Column("score", sa.Float(53), nullable=False),
    sa.Column("n", sa.Integer, nullable=False),
    sa.Column("how", sa.Text, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("low", sa.Float(53)),
    sa.Column("high", sa.Float(53)),
    sa.Column("floor", sa.Float(53)),
    one_of("source", MEASURED_BY),
    # The last figure of a name at or before a version.
    sa.Index("ix_measurements_name_version_at_id", "name", "version", "at", "id"),
)

reservoir = sa.Table(
    "reservoir",  # a bounded sample of real prompts, kept only where an operator asked for it
    metadata,
    sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
)
