"""Figures get a 95 % interval, and the share that the base model keeps of itself."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

COLUMNS = ("low", "high", "floor")


def upgrade() -> None:
    with op.batch_alter_table("measurements") as batch_op:
        for name in COLUMNS:
            batch_op.add_column(sa.Column(name, sa.Float(53)))


def downgrade() -> None:
    with op.batch_alter_table("measurements") as batch_op:
        for name in reversed(COLUMNS):
            batch_op.drop_column(name)
