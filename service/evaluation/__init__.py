"""Measurements of edits: records with probes, scores beside the base model's, and reports. Knows no database and no HTTP."""
