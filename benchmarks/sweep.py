"""Run a suite in many processes, or several suites, by Hydra's sweeps and launchers.

    python -m benchmarks.sweep -m suite=embedded "worker=range(32)" \\
        hydra/launcher=submitit_slurm hydra.launcher.gpus_per_node=1 hydra.launcher.timeout_min=600

A job is ``python -m benchmarks.run`` with the overrides of its place in the sweep, in its own
process. Workers do the same work: whichever is free takes the next cell (:mod:`benchmarks.claims`),
so their number says how many there are, and on a machine with several GPUs which of them is whose
(worker n takes the n-th of those that are visible, and begins again behind the last). What else may
be swept is what ``benchmarks.run`` takes, such as ``seed=0,1`` or ``privacy.delta=1e-5,1e-6``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from types import FrameType

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig

from benchmarks.config import CONFIGS
from benchmarks.installed import installed
from benchmarks.stopping import SIGNALS
from benchmarks.workers import own_gpu

WORKER = "worker"


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="run")
def main(config: DictConfig) -> None:
    """One job of the sweep.

    Raises:
        RuntimeError: the run ended with another exit code than 0, which its output explains.
    """
    overrides = [o for o in HydraConfig.get().overrides.task if not o.startswith(f"{WORKER}=")]
    command = [sys.executable, "-m", "benchmarks.run", *overrides]
    process = subprocess.Popen(command, env=os.environ | own_gpu(config.worker))
    for number in SIGNALS:
        # Ctrl-C reaches the whole terminal; the others are meant for the run, which this waits for.
        hand_on = signal.SIG_IGN if number == signal.SIGINT else _to(process)
        signal.signal(number, hand_on)
    if code := process.wait():
        raise RuntimeError(f"benchmarks.run ended with exit code {code}")


def _to(process: subprocess.Popen[bytes]) -> Callable[[int, FrameType | None], None]:
    return lambda number, frame: process.send_signal(number)


class InstalledMethods(SearchPathPlugin):
    """Lets Hydra find methods of other packages; a job then composes its own and no other's."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the packages' configs, so that none of ours is replaced."""
        for method in installed():
            if method.folder is not None:
                search_path.append(method.package, f"file://{method.folder}")


if __name__ == "__main__":
    Plugins.instance().register(InstalledMethods)
    main()
