"""A live set keeps lost edits, because the overlay was trained on them. An edit that failed can be retracted."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ROLES = "role IN ('live', 'tombstone', 'ghost')"
ROLES_AND_LOST = "role IN ('live', 'tombstone', 'ghost', 'lost')"


def upgrade() -> None:
    _check_roles(ROLES_AND_LOST)
    op.execute("INSERT INTO edit_transitions (from_status, to_status) VALUES ('failed', 'retracted')")


def downgrade() -> None:
    op.execute("DELETE FROM edit_transitions WHERE from_status = 'failed' AND to_status = 'retracted'")
    op.execute("UPDATE version_edits SET role = 'ghost' WHERE role = 'lost'")  # a refit then removes them from the answers
    _check_roles(ROLES)


def _check_roles(check: str) -> None:
    with op.batch_alter_table("version_edits") as batch_op:
        batch_op.drop_constraint(op.f("ck_version_edits_role"), type_="check")
        batch_op.create_check_constraint(op.f("ck_version_edits_role"), check)
