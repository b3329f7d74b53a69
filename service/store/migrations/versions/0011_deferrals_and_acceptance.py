"""An edit keeps why it was deferred, and how it is to be accepted. Of earlier deferrals nothing is known: null. Earlier edits
were judged.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

ANYWAY = "ix_edits_accepted_anyway"
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
        batch_op.add_column(sa.Column("deferral", sa.JSON))
        batch_op.add_column(sa.Column("accept", sa.String(8), nullable=False, server_default="judged"))
        batch_op.add_column(sa.Column("accepted_anyway", sa.Boolean, nullable=False, server_default=sa.false()))
        batch_op.create_check_constraint(op.f("ck_edits_accept"), "accept IN ('judged', 'anyway')")
    _restore_trigger()
    op.create_index(
        ANYWAY, "edits", ["seq"], sqlite_where=sa.text("accepted_anyway = 1"), postgresql_where=sa.text("accepted_anyway")
    )


def downgrade() -> None:
    op.drop_index(ANYWAY, "edits")
    with op.batch_alter_table("edits") as batch_op:
        batch_op.drop_constraint(op.f("ck_edits_accept"), type_="check")
        for column in ("accepted_anyway", "accept", "deferral"):
            batch_op.drop_column(column)
    _restore_trigger()


def _restore_trigger() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute(SQLITE_TRIGGER)
