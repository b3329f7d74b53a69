"""The field's data sets in their own forms, read into records. One file a family of schemas. Knows no model, echoes no row."""

from service.evaluation.datasets.files import FORMATS
from service.evaluation.datasets.load import SCHEMAS, LoadedDataset, RowFault, load, read

__all__ = ["FORMATS", "SCHEMAS", "LoadedDataset", "RowFault", "load", "read"]
