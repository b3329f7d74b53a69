"""The language model layer: torch and transformers, no database and no HTTP.

Legend of shapes, used everywhere: `B` rows of a batch, `T` tokens, `D` hidden width, `R` basis vectors, `V` vocabulary,
`N` chosen positions over all rows of a batch (row-major).

Two rules hold here: base weights are never written, and the intervened positions are never state of a model.
"""
