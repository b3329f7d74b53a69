"""Data sets as their users have them, read into records. One file a family of schemas; knows no model and never echoes a row."""

from service.evaluation.datasets.load import SCHEMAS, Bad, Loaded, load, read
from service.evaluation.records import edit_request_of

__all__ = ["SCHEMAS", "Bad", "Loaded", "edit_request_of", "load", "read"]
