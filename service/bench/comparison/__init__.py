"""Errata beside what else could be done: edits in the prompt, the nearest edit in the prompt, a refit, each method alone."""
