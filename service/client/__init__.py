"""How this program speaks to a server over HTTP: a server of its own, following edits and jobs, sending again."""
