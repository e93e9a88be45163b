"""Run a suite in many processes, or several suites, by Hydra's sweeps and launchers.

    python -m benchmarks.sweep -m suite=embedded worker=1,2,3,4 hydra/launcher=joblib
    python -m benchmarks.sweep -m suite=embedded "worker=range(32)" \\
        hydra/launcher=submitit_slurm hydra.launcher.gpus_per_node=1 hydra.launcher.timeout_min=600

A job is ``python -m benchmarks.run`` with the overrides of its place in the sweep, in its own
process. Workers do the same work: whichever is free takes the next cell (:mod:`benchmarks.claims`),
so their number says how many there are and nothing else. What else may be swept is what
``benchmarks.run`` takes, such as ``seed=0,1`` or ``privacy.delta=1e-5,1e-6``.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from types import FrameType

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from benchmarks.config import CONFIGS
from benchmarks.stopping import SIGNALS

WORKER = "worker"


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="run")
def main(config: DictConfig) -> None:
    """One job of the sweep.

    Raises:
        RuntimeError: the run ended with another exit code than 0, which its output explains.
    """
    overrides = [o for o in HydraConfig.get().overrides.task if not o.startswith(f"{WORKER}=")]
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.run", *overrides])
    for number in SIGNALS:
        # Ctrl-C reaches the whole terminal; the others are meant for the run, which this waits for.
        hand_on = signal.SIG_IGN if number == signal.SIGINT else _to(process)
        signal.signal(number, hand_on)
    if code := process.wait():
        raise RuntimeError(f"benchmarks.run ended with exit code {code}")


def _to(process: subprocess.Popen[bytes]) -> Callable[[int, FrameType | None], None]:
    return lambda number, frame: process.send_signal(number)


if __name__ == "__main__":
    main()
