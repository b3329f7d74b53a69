"""Continual editing in this process: each batch of edits is fitted on top of the last overlay, whatever the fit does."""
