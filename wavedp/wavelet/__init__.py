"""DP-Wavelet (arXiv 2602.23262): private coarse stage, public upsampling stage."""
