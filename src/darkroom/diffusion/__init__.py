"""The mathematics of diffusion, blind to networks and files. See `samplers._base.Denoise` for the one contract."""
