"""Live sets stored as changes to a complete one, minor and major retrains, jobs with a log that can be cancelled, measurements,
and a reservoir of prompts.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Writes the rows that a version takes from its root as rows of its own.
COMPLETE = """
INSERT INTO version_edits (version, edit_id, carrier, role, held, answer, present)
SELECT versions.number, held.edit_id, held.carrier, held.role, held.held, held.answer, held.present
FROM versions JOIN version_edits AS held ON held.version = versions.root
WHERE versions.root <> versions.number AND NOT EXISTS (
  SELECT 1 FROM version_edits AS own WHERE own.version = versions.number AND own.edit_id = held.edit_id)
"""
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    with op.batch_alter_table("versions") as batch_op:
        batch_op.add_column(sa.Column("root", sa.BigInteger()))
        batch_op.add_column(sa.Column("minors", sa.Integer(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("major_at", MOMENT))
    op.execute("UPDATE versions SET root = number")  # until now every version kept all of its rows
    with op.batch_alter_table("versions") as batch_op:
        batch_op.alter_column("root", existing_type=sa.BigInteger(), nullable=False)
        batch_op.alter_column("minors", existing_type=sa.Integer(), existing_nullable=False, server_default=None)
    with op.batch_alter_table("version_edits") as batch_op:
        batch_op.add_column(sa.Column("present", sa.Boolean(), nullable=False, server_default=sa.true()))
    with op.batch_alter_table("version_edits") as batch_op:
        batch_op.alter_column("present", existing_type=sa.Boolean(), existing_nullable=False, server_default=None)
    op.create_index("ix_version_edits_edit_id", "version_edits", ["edit_id"])

    asked, due = sa.text("retract_asked_at IS NOT NULL"), sa.text("scores_due")
    op.create_index("ix_edits_retract_asked_at", "edits", ["retract_asked_at"], sqlite_where=asked, postgresql_where=asked)
    op.create_index("ix_edits_scores_due", "edits", ["seq"], sqlite_where=sa.text("scores_due = 1"), postgresql_where=due)

    with op.batch_alter_table("jobs") as batch_op:
        batch_op.add_column(sa.Column("mode", sa.String(8)))
        batch_op.add_column(sa.Column("request", sa.JSON()))
        batch_op.add_column(sa.Column("result", sa.JSON()))
        batch_op.add_column(sa.Column("log", sa.JSON(), nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("cancel_asked_at", MOMENT))
        batch_op.add_column(sa.Column("cancelled_by", sa.Text()))
        batch_op.add_column(sa.Column("retry_at", MOMENT))
        batch_op.drop_constraint(op.f("ck_jobs_kind"), type_="check")
        batch_op.create_check_constraint(op.f("ck_jobs_kind"), "kind IN ('apply', 'refit', 'retrain', 'export')")
        batch_op.create_check_constraint(op.f("ck_jobs_mode"), "mode IN ('minor', 'major')")
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.alter_column("log", existing_type=sa.JSON(), existing_nullable=False, server_default=None)
    op.create_index("ix_jobs_kind_created_at_id", "jobs", ["kind", "created_at", "id"], unique=False)
    op.execute("UPDATE jobs SET mode = 'major' WHERE kind = 'retrain'")

    with op.batch_alter_table("evals") as batch_op:
        batch_op.add_column(sa.Column("about", sa.JSON(), nullable=False, server_default="{}"))
        batch_op.add_column(sa.Column("outcomes", sa.JSON()))
        batch_op.add_column(sa.Column("progress", sa.Float(53), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("started_at", MOMENT))
        batch_op.add_column(sa.Column("cancel_asked_at", MOMENT))
        batch_op.drop_constraint(op.f("ck_evals_status"), type_="check")
        batch_op.create_check_constraint(
            op.f("ck_evals_status"), "status IN ('queued', 'running', 'done', 'failed', 'cancelled')"
        )
        batch_op.create_index("ix_evals_version_created_at", ["version", "created_at"], unique=False)
    with op.batch_alter_table("evals") as batch_op:
        batch_op.alter_column("about", existing_type=sa.JSON(), existing_nullable=False, server_default=None)
        batch_op.alter_column("progress", existing_type=sa.Float(53), existing_nullable=False, server_default=None)

    op.create_table(
        "measurements",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("score", sa.Float(53), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("how", sa.Text(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.CheckConstraint("source IN ('gate', 'monitor')", name=op.f("ck_measurements_source")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_measurements")),
    )
    op.create_index("ix_measurements_name_version_at_id", "measurements", ["name", "version", "at", "id"], unique=False)
    op.create_table(
        "reservoir",
        sa.Column("slot", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("slot", name=op.f("pk_reservoir")),
    )


def downgrade() -> None:
    op.drop_table("reservoir")
    op.drop_index("ix_measurements_name_version_at_id", "measurements")
    op.drop_table("measurements")

    op.execute("UPDATE evals SET status = 'failed', error = 'cancelled' WHERE status = 'cancelled'")
    with op.batch_alter_table("evals") as batch_op:
        batch_op.drop_index("ix_evals_version_created_at")
        batch_op.drop_constraint(op.f("ck_evals_status"), type_="check")
        batch_op.create_check_constraint(op.f("ck_evals_status"), "status IN ('queued', 'running', 'done', 'failed')")
        for column in ("about", "outcomes", "progress", "started_at", "cancel_asked_at"):
            batch_op.drop_column(column)

    op.execute("DELETE FROM jobs WHERE kind = 'export'")
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.drop_index("ix_jobs_kind_created_at_id")
        batch_op.drop_constraint(op.f("ck_jobs_mode"), type_="check")
        batch_op.drop_constraint(op.f("ck_jobs_kind"), type_="check")
        batch_op.create_check_constraint(op.f("ck_jobs_kind"), "kind IN ('apply', 'refit', 'retrain')")
        for column in ("mode", "request", "result", "log", "cancel_asked_at", "cancelled_by", "retry_at"):
            batch_op.drop_column(column)

    op.drop_index("ix_edits_scores_due", "edits")
    op.drop_index("ix_edits_retract_asked_at", "edits")
    op.drop_index("ix_version_edits_edit_id", "version_edits")
    op.execute(COMPLETE)
    op.execute(sa.text("DELETE FROM version_edits WHERE NOT present"))
    with op.batch_alter_table("version_edits") as batch_op:
        batch_op.drop_column("present")
    with op.batch_alter_table("versions") as batch_op:
        for column in ("root", "minors", "major_at"):
            batch_op.drop_column(column)
