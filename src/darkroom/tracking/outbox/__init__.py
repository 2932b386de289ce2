"""What waits on disk until the tracking store has taken it."""
