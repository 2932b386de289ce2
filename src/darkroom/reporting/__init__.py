"""Reports: one self-contained HTML file for every run of a stage, for the model, and for a comparison of runs.

Reads files and runs; loads no model and needs no torch.
"""
