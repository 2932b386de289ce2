"""What a stage runs inside: start-up, lock, copies, resuming, its end, making it again."""
