"""What the pictures are worth: measured with honest uncertainty, by judges that saw real pictures only."""
