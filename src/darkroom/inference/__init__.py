"""From prompts to pictures: the folder of a complete model, and what runs it."""
