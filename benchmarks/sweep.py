"""Run a suite in many processes, or several suites, by Hydra's sweeps and launchers.

    python -m benchmarks.sweep -m suite=embedded worker=1,2,3,4 hydra/launcher=joblib
    python -m benchmarks.sweep -m suite=embedded "worker=range(32)" \\
        hydra/launcher=submitit_slurm hydra.launcher.gpus_per_node=1 hydra.launcher.timeout_min=600

A job is ``python -m benchmarks.run`` with the overrides of its place in the sweep, in its own
process. Workers do the same work: whichever is free takes the next cell (:mod:`benchmarks.claims`),
so their number says how many there are and nothing else. Everything else that may be swept is what
``benchmarks.run`` takes, such as ``seed=0,1`` or ``privacy.delta=1e-5,1e-6``.
"""

from __future__ import annotations

import subprocess
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from benchmarks.config import CONFIGS

WORKER = "worker"


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="run")
def main(config: DictConfig) -> None:
    """One job of the sweep.

    Raises:
        RuntimeError: the run ended with another exit code than 0, which its output explains.
    """
    overrides = [o for o in HydraConfig.get().overrides.task if not o.startswith(f"{WORKER}=")]
    done = subprocess.run([sys.executable, "-m", "benchmarks.run", *overrides])
    if done.returncode:
        raise RuntimeError(f"benchmarks.run ended with exit code {done.returncode}")


if __name__ == "__main__":
    main()
