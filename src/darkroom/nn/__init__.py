"""Networks only: they know no noise schedule, no loss and no stage.

What is shaped like Stable Diffusion carries the module names of diffusers and transformers, so state dicts load in both
directions without renaming. Every network builds in milliseconds at a small size.
"""
