"""DP-LlamaGen: LlamaGen (Sun et al. 2024, arXiv 2406.06525) finetuned with DP-SGD.

The raster counterpart of DP-Wavelet: a public VQ tokenizer without scales, and a Llama over its
tokens that has to learn all of an image under DP, as a whole or through low-rank adapters.
"""

from __future__ import annotations

from wavedp.wavelet.autoregressive import AutoregressiveGenerator


class DPLlamaGen(AutoregressiveGenerator):
    """A :class:`~wavedp.nn.raster.Raster` and a :class:`~wavedp.nn.llama.LlamaPrior`."""
