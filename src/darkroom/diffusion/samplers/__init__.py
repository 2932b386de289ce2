"""One file a sampler: its class says which options it has, and what it needs; its rule is a function that stands alone.

A file here that begins with no underscore is a sampler of its name: params.yaml, `Pipeline` and the command line take
it without another word. Its class is read where nothing is drawn, so a file imports no torch.
"""
