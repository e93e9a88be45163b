"""Private Evolution (Lin et al., ICLR 2024, arXiv 2305.15560): no training, only votes.

A public generator draws a population. In every generation each private record votes for the nearest
candidate; the histogram of votes is released with noise, candidates are drawn by it, and variations
of them compete in the next one (algorithms 1 and 2). Here the generator is the publicly pretrained
spectral prior, and nearness is in the pixels of the low band: an embedding that is public and that
no metric uses.

What differs from the paper: candidates are the members and their variations (as in Aug-PE,
arXiv 2403.01749), where the paper lets variations alone go on, so what is good is not lost; there
is no lookahead; captions are ignored, because a vote per label has no counterpart in free text.

Shapes: n members, m candidates, t tokens of the voted scales with C codes each, r pixels per side
of the low band.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from wavedp.dp.errors import UserError
from wavedp.dp.plan import Plan
from wavedp.dp.private import PrivateRecords
from wavedp.dp.trainer import Trainer
from wavedp.nn.draw import Draw
from wavedp.nn.images import to_uint8
from wavedp.wavelet.autoregressive import AutoregressiveGenerator
from wavedp.wavelet.encoders import LowBandEncoder
from wavedp.wavelet.prior import SpectralPrior
from wavedp.wavelet.tokenizer import SpectralTokenizer
from wavedp.wavelet.training import PriorTraining, TokenizerTraining, check_prompts, check_together

LABEL = "private evolution"


class PrivateEvolution(AutoregressiveGenerator):
    """A population of low bands, chosen by private votes; details from the public prior.

    Args:
        tokenizer, prior: the publicly pretrained parts.
        tokenizer_training, training: how they are trained and sampled.
        captions: public ones, for which the first population is drawn, in turn.
        members: n, of the population.
        voted_scales: scales that evolve, 1 (LL alone) to all. The others are drawn by the prior
            for every image, so that members that are chosen twice do not look the same.
        degrees: the chance with which a variation redraws a token, in the first and in the last
            generation, linear in between.
        noise_threshold, vote_threshold: H is the larger of the two: standard deviations of the
            noise, and times the votes that a candidate would have if all had as many.
    """

    conditioning: ClassVar[Literal["text", "none"]] = "none"
    private_parts: ClassVar[tuple[str, ...]] = ("population",)

    population: Tensor

    def __init__(
        self,
        tokenizer: SpectralTokenizer,
        prior: SpectralPrior,
        tokenizer_training: TokenizerTraining,
        training: PriorTraining,
        captions: Sequence[str],
        members: int = 1000,
        voted_scales: int = 1,
        degrees: Sequence[float] = (0.3, 0.05),
        noise_threshold: float = 2.0,
        vote_threshold: float = 3.0,
    ) -> None:
        super().__init__(tokenizer, prior, training, tokenizer_training)
        if not captions or members < 1:
            raise UserError(
                f"Private Evolution needs public captions and members, got {len(captions)} and "
                f"{members}; set generator.captions and generator.members."
            )
        if not 1 <= voted_scales <= tokenizer.scales:
            raise UserError(
                f"voted_scales={voted_scales} must lie in 1..{tokenizer.scales}, the scales of "
                "the tokenizer."
            )
        if len(degrees) != 2 or not all(0 <= degree <= 1 for degree in degrees):
            raise UserError(
                f"degrees={list(degrees)} must be two chances in [0, 1], of the first and the last "
                "generation; set generator.degrees."
            )
        if min(noise_threshold, vote_threshold) < 0:
            raise UserError(
                f"noise_threshold={noise_threshold} and vote_threshold={vote_threshold} must not "
                "be negative; set them in the config of the method."
            )
        self._captions, self._scales = tuple(captions), voted_scales
        self._degrees = tuple(degrees)
        self._noise_threshold, self._vote_threshold = noise_threshold, vote_threshold
        self._encoder = LowBandEncoder(self.resolution, tokenizer.side(voted_scales))
        # -1: there is none yet.
        shape = (members, voted_scales * tokenizer.tokens_per_scale, tokenizer.codes)
        self.register_buffer("population", torch.full(shape, -1, dtype=torch.int16))

    def check(self, prompts: Sequence[str]) -> None:
        """See :class:`wavedp.protocol.ImageGenerator`. Prompts are not read."""
        check_together(self.prior, self.tokenizer, self._training.text)
        check_prompts(self._training.text, self._captions)

    @torch.no_grad()
    def finetune(self, private: PrivateRecords, trainer: Trainer) -> None:
        """Evolve the population, one noisy histogram per generation (algorithm 1)."""
        records = private.map(self._encoder, progress=trainer.progress)
        plan, (first, last) = trainer.plan, self._degrees
        # One number from the run's seed; nothing of what is drawn with it depends on records.
        public = torch.Generator(trainer.device).manual_seed(int(torch.randint(2**62, ())))
        with trainer.queries(records, LABEL, type(self)) as queries:
            members = self._random(len(self.population), int(torch.randint(2**62, ())))
            bands = self._low_bands(members)
            for step in trainer.progress(range(plan.steps), LABEL):
                degree = first + (last - first) * step / max(plan.steps - 1, 1)
                varied = self.vary(members, degree, public)
                candidates = torch.cat([members, varied])
                bands = torch.cat([bands, self._low_bands(varied)])
                votes = queries.histogram(Nearest(bands), bins=len(candidates))
                shares = survivors(votes, self._threshold(plan, len(candidates)))
                chosen = torch.multinomial(shares, len(members), True, generator=public)
                members, bands = candidates[chosen], bands[chosen]
        self.population.copy_(members)

    @torch.no_grad()
    def vary(self, tokens: Tensor, degree: float, generator: torch.Generator) -> Tensor:
        """VARIATION_API: each token is redrawn with chance ``degree``, given those before it.

        All that are redrawn are drawn at once, from what the prior expects after the old tokens,
        and their codes one after the other. Without text: a caption tells what a member began as.

        Args:
            tokens: int64 ``[n, t, C]`` of whole scales.

        Returns:
            int64 ``[n, t, C]``; kept tokens are as they were.
        """
        sampling, varied = self._training, []
        draw = Draw(generator, 1.0, sampling.temperature, sampling.top_k, sampling.top_p)
        no_text = self.prior.without_text(sampling.text([""]).to(tokens.device))
        for part in tokens.split(sampling.batch):
            chosen = torch.rand(part.shape[:2], generator=generator, device=part.device) < degree
            text = no_text.expand(len(part), -1, -1)
            varied.append(self.prior.redraw(part, chosen, text, draw))
        return torch.cat(varied)

    @torch.no_grad()
    def generate(self, captions: Sequence[str], seed: int) -> Iterator[Tensor]:
        """Members of the population in random order, each once before any is taken again.

        Without a population (the pretrained row) samples of the public prior.
        """
        count = len(captions)
        if count == 0:
            return
        if (self.population < 0).any():
            tokens, texts = None, self._in_turn(count)
        else:
            generator = torch.Generator().manual_seed(seed)
            members = len(self.population)
            rounds = [
                torch.randperm(members, generator=generator) for _ in range(0, count, members)
            ]
            order = torch.cat(rounds)[:count].to(self.population.device)
            tokens, texts = self.population[order].long(), [""] * count
        sampled = self._training.sample(self.prior, texts, self.tokenizer.scales, seed, tokens)
        for whole in sampled:
            yield to_uint8(self.tokenizer.decode(whole))

    def _threshold(self, plan: Plan, candidates: int) -> float:
        """H, of public numbers alone: the plan's, and how many candidates there are."""
        deviation = plan.noise_multiplier * plan.clip if plan.noise_multiplier else 0.0
        even = plan.expected_batch * min(1.0, plan.clip) / candidates
        return max(self._noise_threshold * deviation, self._vote_threshold * even)

    def _random(self, count: int, seed: int) -> Tensor:
        """RANDOM_API: tokens ``[count, t, C]`` of the voted scales, for public captions."""
        texts = self._in_turn(count)
        return torch.cat(list(self._training.sample(self.prior, texts, self._scales, seed)))

    def _in_turn(self, count: int) -> list[str]:
        return [self._captions[i % len(self._captions)] for i in range(count)]

    def _low_bands(self, tokens: Tensor) -> Tensor:
        """``[m, t, C]`` to ``[m, 3 r r]``, what the encoder would make of the whole images."""
        parts = tokens.split(self._training.batch)
        return torch.cat([self.tokenizer.decode(part).clamp(-1, 1).flatten(1) for part in parts])


class Nearest:
    """Which candidate a record votes for: the nearest in L2, the first of equals.

    Args:
        candidates: ``[m, d]``.
    """

    def __init__(self, candidates: Tensor) -> None:
        self._candidates = candidates
        self._squares = candidates.square().sum(1)

    def __call__(self, columns: Mapping[str, Any]) -> Tensor:
        """Column ``low`` ``[b, d]`` to int64 ``[b]``."""
        low = columns["low"].to(self._candidates)
        return (self._squares - 2 * low @ self._candidates.T).argmin(1)


def survivors(votes: Tensor, threshold: float) -> Tensor:
    """What each candidate is drawn in proportion to: ``max(votes - H, 0)`` (algorithm 2).

    All alike where no candidate has more than H votes, which an honest histogram of few records
    may well say.

    Args:
        votes: noisy counts ``[m]``.
    """
    shares = (votes - threshold).clamp_min(0)
    return shares if shares.sum() > 0 else torch.ones_like(shares)
