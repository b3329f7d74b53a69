"""The HTTP edge: what a request may look like, what an answer looks like. It knows no tensors and no SQL."""
