"""What can be said before anything runs: whether recipe and data suit each other, and what they will cost."""
