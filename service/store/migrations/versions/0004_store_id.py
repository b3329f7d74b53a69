"""A store has an id, which its data folder also holds. A server gives an older store its id when it opens both."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("head", sa.Column("store_id", sa.String(36)))


def downgrade() -> None:
    with op.batch_alter_table("head") as batch_op:
        batch_op.drop_column("store_id")
