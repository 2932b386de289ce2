"""The ground floor: tensors, randomness, devices, artifacts. Knows nothing of diffusion."""
