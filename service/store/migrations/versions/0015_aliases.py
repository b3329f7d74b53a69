"""Names that people move from version to version. Every move is a row."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

INDEX = "ix_alias_moves_name_number"


def upgrade() -> None:
    op.create_table(
        "alias_moves",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("version", sa.BigInteger()),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["version"], ["versions.number"], name="fk_alias_moves_version"),
        sa.PrimaryKeyConstraint("number", name="pk_alias_moves"),
    )
    op.create_index(INDEX, "alias_moves", ["name", "number"])


def downgrade() -> None:
    op.drop_index(INDEX, "alias_moves")
    op.drop_table("alias_moves")
