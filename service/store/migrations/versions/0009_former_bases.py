"""A store may be taken to another base model. The bases that it had before are kept by the version at which each ended."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "former_bases",
        sa.Column("until", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("until", name="pk_former_bases"),
    )


def downgrade() -> None:
    op.drop_table("former_bases")
