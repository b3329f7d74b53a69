"""Attacks on real servers, as by an attacker, by another process or by a broken disk, and their results."""
