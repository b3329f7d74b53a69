"""An edit says on which prompts it acts, and which other names its subject has. Earlier edits named none: `auto`, no aliases."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

REFUSAL = "this status of an edit may not follow the one before"
# SQLite makes an altered table anew and drops its triggers.
SQLITE_TRIGGER = f"""
CREATE TRIGGER edits_transition BEFORE UPDATE OF status ON edits
WHEN OLD.status <> NEW.status
 AND NOT EXISTS (SELECT 1 FROM edit_transitions WHERE from_status = OLD.status AND to_status = NEW.status)
BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END
"""


def upgrade() -> None:
    with op.batch_alter_table("edits") as batch_op:
        batch_op.add_column(sa.Column("scope", sa.String(8), nullable=False, server_default="auto"))
        batch_op.add_column(sa.Column("aliases", sa.JSON, nullable=False, server_default="[]"))
        batch_op.create_check_constraint(op.f("ck_edits_scope"), "scope IN ('auto', 'subject', 'always')")
    _restore_trigger()


def downgrade() -> None:
    with op.batch_alter_table("edits") as batch_op:
        batch_op.drop_constraint(op.f("ck_edits_scope"), type_="check")
        for column in ("aliases", "scope"):
            batch_op.drop_column(column)
    _restore_trigger()


def _restore_trigger() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute(SQLITE_TRIGGER)
