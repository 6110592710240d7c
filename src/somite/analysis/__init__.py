"""What a diffusion model of masks learns at which noise level, measured and against closed forms."""
