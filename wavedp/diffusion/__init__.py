"""Diffusion models, in pixels or in the latents of an autoencoder, for the methods that use them.

Networks, noise schedules and solvers are those of diffusers; here is what finetunes them through
the core, and what loads published ones.
"""
