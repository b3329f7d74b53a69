"""The `errata` command: one file a command. It knows the settings and speaks HTTP to servers."""
