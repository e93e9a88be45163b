"""Full DP-SGD finetuning of the spectral prior: every scale and every parameter under DP.

What DP-Wavelet decomposes: the same tokenizer, the same publicly pretrained prior and the
same budget, but the private stage has to learn the details, too.
"""

from __future__ import annotations

from wavedp.wavelet.autoregressive import AutoregressiveGenerator


class DPFullFinetune(AutoregressiveGenerator):
    """The spectral prior over all scales, finetuned as a whole."""
