"""Locality: what of the base model's answers and prose a version keeps, and how much of a loss is only noise."""
