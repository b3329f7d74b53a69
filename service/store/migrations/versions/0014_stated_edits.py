"""Versions state edits that no overlay carries yet. Earlier versions state none."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

INDEX = "ix_stated_edits_edit_id"


def upgrade() -> None:
    op.create_table(
        "stated_edits",
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("edit_id", sa.String(36), nullable=False),
        sa.Column("withdrawn", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["version"], ["versions.number"], name="fk_stated_edits_version"),
        sa.ForeignKeyConstraint(["edit_id"], ["edits.id"], name="fk_stated_edits_edit_id"),
        sa.PrimaryKeyConstraint("version", "place", name="pk_stated_edits"),
    )
    op.create_index(INDEX, "stated_edits", ["edit_id"])


def downgrade() -> None:
    op.drop_index(INDEX, "stated_edits")
    op.drop_table("stated_edits")
