"""The first tables, and the trigger that refuses a status of an edit that may not follow its previous status."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TRANSITIONS = {
    "queued": "applying applied consolidated deferred superseded retracted failed",
    "applying": "queued applied consolidated deferred superseded retracted failed",
    "applied": "consolidated superseded retracted rolled_back deferred failed",
    "consolidated": "applied superseded retracted rolled_back deferred failed",
    "deferred": "applied consolidated superseded retracted failed",
    "failed": "applied consolidated",
    "superseded": "applied consolidated deferred",
    "rolled_back": "queued deferred applied consolidated retracted",
}
REFUSAL = "this status of an edit may not follow the one before"

SQLITE_TRIGGER = f"""
CREATE TRIGGER edits_transition BEFORE UPDATE OF status ON edits
WHEN OLD.status <> NEW.status
 AND NOT EXISTS (SELECT 1 FROM edit_transitions WHERE from_status = OLD.status AND to_status = NEW.status)
BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END
"""
POSTGRES_FUNCTION = f"""
CREATE FUNCTION edits_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.status <> NEW.status
     AND NOT EXISTS (SELECT 1 FROM edit_transitions WHERE from_status = OLD.status AND to_status = NEW.status) THEN
    RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$
"""
POSTGRES_TRIGGER = """
CREATE TRIGGER edits_transition BEFORE UPDATE OF status ON edits FOR EACH ROW EXECUTE FUNCTION edits_transition()
"""


def upgrade() -> None:
    transitions = op.create_table(
        "edit_transitions",
        sa.Column("from_status", sa.String(16), nullable=False),
        sa.Column("to_status", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("from_status", "to_status", name=op.f("pk_edit_transitions")),
    )
    op.create_table(
        "edits",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text()),
        sa.Column("relation", sa.Text()),
        sa.Column("ground_truth", sa.Text()),
        sa.Column("conflict_key", sa.Text()),
        sa.Column("key_digest", sa.String(64), nullable=False),
        sa.Column("method", sa.String(8), nullable=False),
        sa.Column("surfaces", sa.JSON(), nullable=False),
        sa.Column("probes", sa.JSON(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True)),
        sa.Column("version", sa.BigInteger()),
        sa.Column("report", sa.JSON()),
        sa.Column("scores_due", sa.Boolean(), nullable=False),
        sa.Column("supersedes", sa.String(36)),
        sa.Column("superseded_by", sa.String(36)),
        sa.Column("error", sa.Text()),
        sa.Column("retract_asked_at", sa.DateTime(timezone=True)),
        sa.Column("retracted_by", sa.Text()),
        sa.Column("restore_previous", sa.Boolean(), nullable=False),
        sa.CheckConstraint("method IN ('auto', 'baft', 'locft')", name=op.f("ck_edits_method")),
        sa.CheckConstraint("status <> 'failed' OR error IS NOT NULL", name=op.f("ck_edits_failed_says_why")),
        sa.CheckConstraint("status <> 'retracted' OR retract_asked_at IS NOT NULL", name=op.f("ck_edits_retracted_was_asked")),
        sa.CheckConstraint("status <> 'superseded' OR superseded_by IS NOT NULL", name=op.f("ck_edits_superseded_by_whom")),
        sa.CheckConstraint(
            "status IN ('queued', 'applying', 'applied', 'consolidated', 'deferred', "
            "'failed', 'superseded', 'retracted', 'rolled_back')",
            name=op.f("ck_edits_status"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('applied', 'consolidated') OR version IS NOT NULL", name=op.f("ck_edits_live_has_version")
        ),
        sa.CheckConstraint("retract_asked_at IS NULL OR retracted_by IS NOT NULL", name=op.f("ck_edits_retracted_by_whom")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_edits")),
        sa.UniqueConstraint("seq", name=op.f("uq_edits_seq")),
    )
    with op.batch_alter_table("edits") as batch_op:
        batch_op.create_index("ix_edits_key_digest_seq", ["key_digest", "seq"], unique=False)
        batch_op.create_index("ix_edits_status_seq", ["status", "seq"], unique=False)

    op.create_table(
        "evals",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON()),
        sa.Column("error", sa.Text()),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("status IN ('queued', 'running', 'done', 'failed')", name=op.f("ck_evals_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evals")),
    )
    with op.batch_alter_table("evals") as batch_op:
        batch_op.create_index("ix_evals_status_created_at", ["status", "created_at"], unique=False)

    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("edit_id", sa.String(36)),
        sa.Column("version", sa.BigInteger()),
        sa.Column("job_id", sa.String(36)),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    with op.batch_alter_table("events") as batch_op:
        batch_op.create_index("ix_events_edit_id", ["edit_id"], unique=False)

    op.create_table(
        "head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("base_fingerprint", sa.Text(), nullable=False),
        sa.Column("base_name", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("latest_version", sa.BigInteger(), nullable=False),
        sa.Column("next_seq", sa.BigInteger(), nullable=False),
        sa.Column("next_event", sa.BigInteger(), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", sa.Text()),
        sa.Column("lease_until_s", sa.Float(53), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_head_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_head")),
    )
    op.create_table(
        "head_history",
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("from_version", sa.BigInteger(), nullable=False),
        sa.Column("to_version", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("epoch", name=op.f("pk_head_history")),
        sa.UniqueConstraint("to_version", name=op.f("uq_head_history_to_version")),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("author", sa.String(255), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("body_hash", sa.String(64), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("author", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("edit_ids", sa.JSON(), nullable=False),
        sa.Column("parent", sa.BigInteger()),
        sa.Column("seed", sa.BigInteger()),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("progress", sa.Float(53), nullable=False),
        sa.Column("stage", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("error", sa.Text()),
        sa.Column("version", sa.BigInteger()),
        sa.Column("fence", sa.BigInteger()),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("kind IN ('apply', 'refit', 'retrain')", name=op.f("ck_jobs_kind")),
        sa.CheckConstraint("status <> 'failed' OR error IS NOT NULL", name=op.f("ck_jobs_failed_says_why")),
        sa.CheckConstraint("status IN ('queued', 'running', 'done', 'failed', 'cancelled')", name=op.f("ck_jobs_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.create_index("ix_jobs_created_at", ["created_at"], unique=False)
        batch_op.create_index(
            "uq_jobs_active",
            ["kind", "status"],
            unique=True,
            sqlite_where=sa.text("status IN ('queued', 'running')"),
            postgresql_where=sa.text("status IN ('queued', 'running')"),
        )

    op.create_table(
        "versions",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("parent", sa.BigInteger()),
        sa.Column("restores", sa.BigInteger()),
        sa.Column("digest", sa.String(64)),
        sa.Column("scores", sa.JSON(), nullable=False),
        sa.Column("edits_counted", sa.Integer(), nullable=False),
        sa.Column("window_count", sa.Integer(), nullable=False),
        sa.Column("fence", sa.BigInteger()),
        sa.Column("job_id", sa.String(36)),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('base', 'baft', 'locft', 'rollback', 'retract')", name=op.f("ck_versions_kind")),
        sa.CheckConstraint("status IN ('published', 'corrupt', 'collected')", name=op.f("ck_versions_status")),
        sa.CheckConstraint("number = 0 OR parent IS NOT NULL", name=op.f("ck_versions_has_parent")),
        sa.CheckConstraint("parent IS NULL OR parent < number", name=op.f("ck_versions_after_parent")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_versions")),
    )
    with op.batch_alter_table("versions") as batch_op:
        batch_op.create_index("ix_versions_digest", ["digest"], unique=False)

    op.create_table(
        "version_edits",
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("edit_id", sa.String(36), nullable=False),
        sa.Column("carrier", sa.String(8), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.Column("answer", sa.Text()),
        sa.CheckConstraint("carrier IN ('window', 'tensors')", name=op.f("ck_version_edits_carrier")),
        sa.CheckConstraint("role <> 'tombstone' OR answer IS NOT NULL", name=op.f("ck_version_edits_tombstone_has_answer")),
        sa.CheckConstraint("role IN ('live', 'tombstone', 'ghost')", name=op.f("ck_version_edits_role")),
        sa.ForeignKeyConstraint(["edit_id"], ["edits.id"], name=op.f("fk_version_edits_edit_id")),
        sa.ForeignKeyConstraint(["version"], ["versions.number"], name=op.f("fk_version_edits_version")),
        sa.PrimaryKeyConstraint("version", "edit_id", name=op.f("pk_version_edits")),
    )
    rows = [{"from_status": before, "to_status": after} for before, words in TRANSITIONS.items() for after in words.split()]
    op.bulk_insert(transitions, rows)
    if op.get_bind().dialect.name == "sqlite":
        op.execute(SQLITE_TRIGGER)
    else:
        op.execute(POSTGRES_FUNCTION)
        op.execute(POSTGRES_TRIGGER)


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER edits_transition ON edits")
        op.execute("DROP FUNCTION edits_transition()")
    op.drop_table("version_edits")
    with op.batch_alter_table("versions") as batch_op:
        batch_op.drop_index("ix_versions_digest")

    op.drop_table("versions")
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.drop_index(
            "uq_jobs_active",
            sqlite_where=sa.text("status IN ('queued', 'running')"),
            postgresql_where=sa.text("status IN ('queued', 'running')"),
        )
        batch_op.drop_index("ix_jobs_created_at")

    op.drop_table("jobs")
    op.drop_table("idempotency_keys")
    op.drop_table("head_history")
    op.drop_table("head")
    with op.batch_alter_table("events") as batch_op:
        batch_op.drop_index("ix_events_edit_id")

    op.drop_table("events")
    with op.batch_alter_table("evals") as batch_op:
        batch_op.drop_index("ix_evals_status_created_at")

    op.drop_table("evals")
    with op.batch_alter_table("edits") as batch_op:
        batch_op.drop_index("ix_edits_status_seq")
        batch_op.drop_index("ix_edits_key_digest_seq")

    op.drop_table("edits")
    op.drop_table("edit_transitions")
