"""What an edit did: records of edits and probes, scores against the base model, and reports. Knows no database and no HTTP."""
