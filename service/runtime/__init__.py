"""A running server: the assembly of its parts, its worker, its sockets and its supervisor."""
