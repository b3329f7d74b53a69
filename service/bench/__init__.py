"""Benchmarks that ship with the program (`errata bench`): streams of edits through a real server, and the papers' contrasts."""
