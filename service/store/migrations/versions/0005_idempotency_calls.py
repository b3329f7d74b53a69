"""An idempotency key has a call, because every call that changes something can be repeatable. Older keys belong to edits."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

EDITS = "edits"


def upgrade() -> None:
    # The default stays: a server of the previous release may still run beside this one. It writes keys of edits without a call.
    op.add_column("idempotency_keys", sa.Column("call", sa.String(16), nullable=False, server_default=EDITS))


def downgrade() -> None:
    op.execute(f"DELETE FROM idempotency_keys WHERE call <> '{EDITS}'")  # the older revision does not read their answers
    with op.batch_alter_table("idempotency_keys") as batch_op:
        batch_op.drop_column("call")
