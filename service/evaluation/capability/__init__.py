"""Capability: the share of small tasks that a version still solves, and lm-evaluation-harness."""
