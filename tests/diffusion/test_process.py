"""Noise laws and solvers, on a Gaussian whose best denoiser is known in closed form."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from wavedp.diffusion.process import DDPM, EDM

MEAN, DEVIATION = 0.3, 0.5
KINDS = ["epsilon", "v_prediction", "sample"]


def gaussian(rows):
    return MEAN + DEVIATION * torch.randn(rows, 1, 4, 4)


def best_answer_ddpm(process, x, time):
    """E[noise | x] for clean ~ N(MEAN, DEVIATION^2), written down from alpha and sigma."""
    t = torch.linspace(process.beta_start**0.5, process.beta_end**0.5, process.levels) ** 2
    share = torch.cumprod(1 - t, 0)[time.long()]
    alpha, sigma = share.sqrt(), (1 - share).sqrt()
    noise = sigma * (x - alpha * MEAN) / (alpha**2 * DEVIATION**2 + sigma**2)
    if process.prediction_type == "epsilon":
        return noise
    clean = (x - sigma * noise) / alpha
    return clean if process.prediction_type == "sample" else alpha * noise - sigma * clean


def best_answer_edm(process, inputs, time):
    """F of Karras et al. (equation 7) for the best D(x; sigma)."""
    sigma, own = math.exp(4 * time), process.deviation
    x = inputs * math.sqrt(sigma**2 + own**2)
    clean = (DEVIATION**2 * x + sigma**2 * MEAN) / (DEVIATION**2 + sigma**2)
    skip, out = own**2 / (sigma**2 + own**2), sigma * own / math.sqrt(sigma**2 + own**2)
    return (clean - skip * x) / out


def solved(process, best, steps, rows=400):
    torch.manual_seed(0)
    solver = process.solver(steps)
    solver.set_timesteps(steps)
    x = torch.randn(rows, 1, 4, 4) * solver.init_noise_sigma
    for time in solver.timesteps:
        inputs = solver.scale_model_input(x, time)
        x = solver.step(best(process, inputs, time), time, x).prev_sample
    return x


@pytest.mark.parametrize("solver", [DDIMScheduler, DPMSolverMultistepScheduler])
@pytest.mark.parametrize("kind", KINDS)
def test_ddpm_with_the_best_denoiser_draws_the_gaussian(solver, kind):
    drawn = solved(DDPM(prediction_type=kind, solver_type=solver), best_answer_ddpm, 50)
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.05)
    assert drawn.std().item() == pytest.approx(DEVIATION, abs=0.05)


def test_edm_with_the_best_denoiser_draws_the_gaussian():
    drawn = solved(EDM(deviation=0.7), best_answer_edm, 20)  # sigma_data need not be the truth
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.05)
    assert drawn.std().item() == pytest.approx(DEVIATION, abs=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_of_ddpm_is_what_its_solver_asks_for(kind):
    """A best answer is orthogonal to what is left over."""
    torch.manual_seed(0)
    process = DDPM(prediction_type=kind)
    noised = process.noised(gaussian(20_000))
    answers = torch.stack(
        [
            best_answer_ddpm(process, x, time)
            for x, time in zip(noised.inputs, noised.times, strict=True)
        ]
    )
    assert ((noised.target - answers) * answers).mean().abs() < 0.01


def test_an_error_of_the_clean_image_weighs_what_it_makes_of_v():
    """But for levels of little noise, where that would grow without bound."""
    torch.manual_seed(0)
    process, wrong = DDPM(prediction_type="sample"), 0.1
    noised = process.noised(gaussian(500))
    share = process._shares[noised.times].view(-1, 1, 1, 1)
    alpha, sigma = share.sqrt(), (1 - share).sqrt()

    def v(clean):
        return alpha * (noised.inputs - alpha * clean) / sigma - sigma * clean

    far = (v(noised.target + wrong) - v(noised.target)).square().mean((1, 2, 3))
    noisy = sigma.flatten() ** 2 > 0.05
    assert 300 < noisy.sum() < 500
    torch.testing.assert_close((noised.weight * wrong**2)[noisy], far[noisy])
    assert (noised.weight[~noisy] == 20).all()


def test_the_target_of_edm_takes_the_noisy_image_to_the_clean_one():
    torch.manual_seed(0)
    process, clean = EDM(), gaussian(500)
    noised = process.noised(clean)
    sigma, own = (4 * noised.times).exp().view(-1, 1, 1, 1), process.deviation
    noisy = noised.inputs * (sigma**2 + own**2).sqrt()
    skip, out = own**2 / (sigma**2 + own**2), sigma * own / (sigma**2 + own**2).sqrt()
    torch.testing.assert_close(skip * noisy + out * noised.target, clean, atol=1e-3, rtol=1e-3)


def test_inputs_and_targets_of_edm_have_unit_variance_where_sigma_data_is_right():
    torch.manual_seed(0)
    noised = EDM(deviation=DEVIATION).noised(gaussian(50_000) - MEAN)
    assert noised.inputs.std().item() == pytest.approx(1, abs=0.02)
    assert noised.target.std().item() == pytest.approx(1, abs=0.02)


def test_levels_of_edm_follow_their_law():
    torch.manual_seed(0)
    noised = EDM(log_mean=-0.5, log_deviation=0.8).noised(torch.zeros(50_000, 1, 1, 1))
    logs = 4 * noised.times
    assert logs.mean().item() == pytest.approx(-0.5, abs=0.02)
    assert logs.std().item() == pytest.approx(0.8, abs=0.02)


def test_each_row_has_noise_and_a_level_of_its_own():
    """Rows of one record, its views, are the noise multiplicity."""
    torch.manual_seed(0)
    for process in (DDPM(), EDM()):
        noised = process.noised(torch.zeros(6, 3, 4, 4))
        assert len(noised.times.unique()) == 6
        assert len(noised.inputs.flatten(1).unique(dim=0)) == 6
