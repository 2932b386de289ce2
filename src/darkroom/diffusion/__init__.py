"""The mathematics of diffusion, blind to networks and files. See `denoiser.Denoise` for the one contract."""
