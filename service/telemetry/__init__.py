"""What the service tells of itself: log lines."""
