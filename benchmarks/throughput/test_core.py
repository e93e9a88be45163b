"""One micro-batch of the embedded prior: each clipping engine beside ordinary training.

Quote ratios of medians from one run; absolute times of shared machines mean little.
"""

import math

import pytest
import torch

from wavedp.dp.clipping import ENGINES, make_engine
from wavedp.wavelet.prior import SpectralPrior, next_token_loss

BATCH = 64


@pytest.mark.parametrize("scales", [2, 3], ids=["low band", "all scales"])
@pytest.mark.parametrize("engine", ["ordinary", *ENGINES])
def test_engine(benchmark, engine, scales):
    torch.manual_seed(0)
    prior = SpectralPrior()
    prior.freeze_above(scales)
    batch = {
        "tokens": torch.randint(0, 512, (BATCH, 16 * scales, 4)),
        "text": torch.randn(BATCH, 5, 4, 96),
    }
    name, clip = ("bookkeeping", math.inf) if engine == "ordinary" else (engine, 1.0)
    tested = make_engine(name, prior, next_token_loss(0.1), clip)
    mask = torch.ones(BATCH, dtype=torch.bool)
    benchmark.extra_info["examples"] = BATCH
    benchmark.pedantic(tested.add, (batch, mask), rounds=5, warmup_rounds=1)
