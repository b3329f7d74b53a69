"""The language model layer: torch and transformers, no database and no HTTP.

Legend of shapes, used everywhere: `B` rows of a batch, `T` tokens, `D` hidden width, `R` basis vectors, `V` vocabulary,
`N` chosen positions over all rows of a batch (row-major).

Two things never happen here: base weights are not written, and which positions are intervened is never state of a model.
"""
