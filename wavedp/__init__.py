"""WaveDP: differentially private image generators, compared at matched epsilon."""

__version__ = "0.1.0"
