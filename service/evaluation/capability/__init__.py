"""What edits must not cost: small tasks, and lm-evaluation-harness."""
