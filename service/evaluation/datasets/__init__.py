"""Data sets as their users have them, read into records. One file a family of schemas; knows no model and never echoes a row."""

from service.evaluation.datasets.load import SCHEMAS, LoadedDataset, RowFault, load, read

__all__ = ["SCHEMAS", "LoadedDataset", "RowFault", "load", "read"]
