"""The words and rules of Errata in plain Python: no database, no HTTP, no tensors."""
