"""A running server: its parts assembled, its worker, its sockets and its supervisor."""
