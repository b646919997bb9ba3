"""The algorithms whose policy is a denoising chain."""
