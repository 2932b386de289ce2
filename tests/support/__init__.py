"""What several tests share: makers of small things, projects to run, and readers of what came out."""
