"""A job and its version have the number of neutral sentences that their fits may use. Before, a fit waited for all: null."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("neutral_sentences", sa.Integer()))
    op.add_column("versions", sa.Column("neutral_sentences", sa.Integer()))


def downgrade() -> None:
    op.drop_column("versions", "neutral_sentences")
    op.drop_column("jobs", "neutral_sentences")
