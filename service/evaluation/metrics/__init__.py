"""The metrics of the field, one file a family, and how rows are asked."""
