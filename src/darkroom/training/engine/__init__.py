"""What every training shares: the loop, its steps, optimisers, averages, processes and checkpoints."""
