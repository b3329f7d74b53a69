"""An idempotency key says which call it came to: every call that changes something may have one now. Those from before came with
edits.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

EDITS = "edits"


def upgrade() -> None:
    # The default stays: a server of the release before, which may still run beside this one, writes keys of edits and no call.
    op.add_column("idempotency_keys", sa.Column("call", sa.String(16), nullable=False, server_default=EDITS))


def downgrade() -> None:
    op.execute(f"DELETE FROM idempotency_keys WHERE call <> '{EDITS}'")  # nobody reads their answers there
    with op.batch_alter_table("idempotency_keys") as batch_op:
        batch_op.drop_column("call")
