"""From prompts to pictures: a folder that holds a whole model, and what runs it."""
