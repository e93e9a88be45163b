"""Methods that DP-Wavelet is compared with: one file and one config each."""
