"""Weights and configurations of other tools: Stable Diffusion 1.x single files and diffusers folders, both ways."""
