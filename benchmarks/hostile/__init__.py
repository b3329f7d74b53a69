"""What an attacker, a neighbour or a broken disk does to a server, done for real, and what came of it."""
