"""The lists of methods and of kinds of versions become a pattern of names: the registry of methods knows the names. A retrain has
a method.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

LETTERS = "abcdefghijklmnopqrstuvwxyz"
METHODS = "method IN ('auto', 'baft', 'locft')"
KINDS = "kind IN ('base', 'baft', 'locft', 'rollback', 'retract')"
REFUSAL = "this status of an edit may not follow the one before"
# SQLite makes an altered table anew and drops its triggers.
SQLITE_TRIGGER = f"""
CREATE TRIGGER edits_transition BEFORE UPDATE OF status ON edits
WHEN OLD.status <> NEW.status
 AND NOT EXISTS (SELECT 1 FROM edit_transitions WHERE from_status = OLD.status AND to_status = NEW.status)
BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END
"""


def upgrade() -> None:
    _replace_check("edits", "method", _name_rule("method"), sa.String(8), sa.String(16))
    _replace_check("versions", "kind", _name_rule("kind"), sa.String(16), sa.String(16))
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.add_column(sa.Column("method", sa.String(16)))
        batch_op.create_check_constraint(op.f("ck_jobs_method"), _name_rule("method"))
    op.execute("UPDATE jobs SET method = 'locft' WHERE kind = 'retrain' AND status <> 'queued'")


def downgrade() -> None:
    with op.batch_alter_table("jobs") as batch_op:
        batch_op.drop_constraint(op.f("ck_jobs_method"), type_="check")
        batch_op.drop_column("method")
    _replace_check("versions", "kind", KINDS, sa.String(16), sa.String(16))
    _replace_check("edits", "method", METHODS, sa.String(16), sa.String(8))


def _name_rule(column: str) -> str:
    return (
        f"length({column}) BETWEEN 1 AND 16 AND rtrim({column}, '{LETTERS}0123456789_') = ''"
        f" AND ltrim(substr({column}, 1, 1), '{LETTERS}') = ''"
    )


def _replace_check(table: str, column: str, rule: str, before: sa.String, after: sa.String) -> None:
    with op.batch_alter_table(table) as batch_op:
        batch_op.drop_constraint(op.f(f"ck_{table}_{column}"), type_="check")
        batch_op.create_check_constraint(op.f(f"ck_{table}_{column}"), rule)
        if before.length != after.length:
            batch_op.alter_column(column, existing_type=before, type_=after, existing_nullable=False)
    if table == "edits" and op.get_bind().dialect.name == "sqlite":
        op.execute(SQLITE_TRIGGER)
