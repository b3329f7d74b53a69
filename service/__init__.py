"""Errata: a language model server whose facts can be corrected while it serves."""

__version__ = "0.1.0"
