"""Training: one loop, and a task for each network."""
