"""A store pins its arithmetic: the dtype of its base, the CPU threads, and why they were chosen. A server fills them in for an
older store when it opens it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

CHECKS = {
    "dtype": "dtype IN ('float32', 'bfloat16', 'float16')",
    "torch_threads": "torch_threads BETWEEN 1 AND 256",
    "arithmetic": "(dtype IS NULL) = (torch_threads IS NULL)",
}


def upgrade() -> None:
    with op.batch_alter_table("head") as batch_op:
        batch_op.add_column(sa.Column("dtype", sa.String(16)))
        batch_op.add_column(sa.Column("dtype_reason", sa.Text))
        batch_op.add_column(sa.Column("torch_threads", sa.Integer))
        batch_op.add_column(sa.Column("torch_threads_reason", sa.Text))
        for name, rule in CHECKS.items():
            batch_op.create_check_constraint(op.f(f"ck_head_{name}"), rule)


def downgrade() -> None:
    with op.batch_alter_table("head") as batch_op:
        for name in CHECKS:
            batch_op.drop_constraint(op.f(f"ck_head_{name}"), type_="check")
        for column in ("torch_threads_reason", "torch_threads", "dtype_reason", "dtype"):
            batch_op.drop_column(column)
