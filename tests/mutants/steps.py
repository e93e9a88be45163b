"""Traps of sampling, steps and noise."""

from . import Mutant

TRAINER, PLAN = "wavedp/dp/trainer.py", "wavedp/dp/plan.py"
GRADIENT_SUMS = "wavedp/dp/gradient_sums.py"
SAMPLING, DISTRIBUTED = "wavedp/dp/sampling.py", "wavedp/dp/distributed.py"
NOISE, RESUME = "wavedp/dp/noise.py", "wavedp/dp/resume.py"
CORE = "tests/dp/test_trainer.py::"
TRAPS = "tests/dp/test_traps.py::"
RANKS = "tests/dp/test_distributed.py::"

POISSON = f"{TRAPS}test_batches_of_a_training_are_poisson_over_the_true_records"
STEPS = f"{TRAPS}test_a_plan_takes_its_steps_whatever_q_and_the_micro_batches[30-7-1]"
APART = f"{TRAPS}test_a_step_holds_nothing_of_the_steps_before"
EMPTY = f"{CORE}test_empty_batches_still_release_noise_and_count"
RESUMED = f"{TRAPS}test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been"

MUTANTS = [
    Mutant(
        trap=1,
        what="the divisor is the number of records drawn",
        file=TRAINER,
        old="                training.release(parameters)\n",
        new="                training.release(parameters)\n"
        "                drawn = max(1, len(training._batches.at(step)))\n"
        "                for parameter in parameters.values():\n"
        "                    parameter.grad.mul_(self.plan.expected_batch / drawn)\n",
        tests=(f"{POISSON}[100]",),
    ),
    Mutant(
        trap=2,
        what="the divisor is q times the true number of records",
        file=GRADIENT_SUMS,
        old="div_(self._plan.expected_batch)",
        new="div_(self._plan.event.sampling_probability * self._batches.size)",
        tests=(f"{CORE}test_the_divisor_is_public_whatever_the_true_number_of_records",),
    ),
    Mutant(
        trap=2,
        what="q is the expected batch over the true number of records",
        file=PLAN,
        old="PoissonBatches(size, self.sampling_probability, stream)",
        new="PoissonBatches(size, self.expected_batch / size, stream)",
        tests=(f"{POISSON}[60]",),
    ),
    Mutant(
        trap=4,
        what="noise after every micro-batch",
        file=GRADIENT_SUMS,
        old="self._engine.add(batch, micro.mask.to(device))",
        new="self._engine.add(batch, micro.mask.to(device))\n"
        "                self.noise.add_to(self._engine.sums, step)",
        tests=(f"{TRAPS}test_noise_is_added_once_whatever_the_number_of_micro_batches[1]",),
    ),
    Mutant(
        trap=5,
        what="sums are not reset between steps",
        file=GRADIENT_SUMS,
        old="total.zero_()",
        new="total.mul_(1)",
        tests=(f"{APART}[0.0-moved0]",),
    ),
    Mutant(
        trap=5,
        what="sums are reset while the gradients still share their memory",
        file=TRAINER,
        old="                training.release(parameters)\n",
        new="                training.release(parameters)\n                training.clear()\n",
        tests=(f"{APART}[0.0-moved0]",),
    ),
    Mutant(
        trap=5,
        what="a micro-batch overwrites the one before",
        file="wavedp/dp/clipping/bookkeeping.py",
        old="self.sums[name] += clipped.view_as(self.sums[name])",
        new="self.sums[name].copy_(clipped.view_as(self.sums[name]))",
        tests=(f"{APART}[0.5-moved1]",),
    ),
    Mutant(
        trap=6,
        what="an empty batch adds no noise",
        file=TRAINER,
        old="                training.add_noise(step)\n",
        new="                if not any(total.any() for total in training._engine.sums.values()):\n"
        "                    continue\n"
        "                training.add_noise(step)\n",
        tests=(EMPTY,),
    ),
    Mutant(
        trap=6,
        what="an empty batch is not charged",
        file=TRAINER,
        old="                training.add_noise(step)\n                if private:\n",
        new="                empty = not any(t.any() for t in training._engine.sums.values())\n"
        "                training.add_noise(step)\n                if private and not empty:\n",
        tests=(EMPTY,),
    ),
    Mutant(
        trap=6,
        what="an empty batch is cut into one micro-batch of nothing",
        file=SAMPLING,
        old="range(0, len(index), size)",
        new="range(0, max(1, len(index)), size)",
        tests=(EMPTY,),
        error="IndexError",
    ),
    Mutant(
        trap=7,
        what="the first rank adds no noise where it has no records",
        file=GRADIENT_SUMS,
        old="        if self.world.leads:\n",
        new="        if self.world.leads and any(t.any() for t in self._engine.sums.values()):\n",
        tests=(f"{RANKS}test_every_rank_takes_every_step_with_empty_and_unequal_parts",),
    ),
    Mutant(
        trap=7,
        what="a rank without records does not apply the step",
        file=GRADIENT_SUMS,
        old="        self.world.spread(sums.values())\n",
        new="        empty = not any(total.any() for total in sums.values())\n"
        "        self.world.spread(sums.values())\n"
        "        for total in sums.values():\n"
        "            total.mul_(not empty)\n",
        tests=(f"{RANKS}test_every_rank_takes_every_step_with_empty_and_unequal_parts",),
    ),
    Mutant(
        trap=8,
        what="epochs of int(1 / q) steps",
        file=TRAINER,
        old="range(start, self.plan.steps), label",
        new="range(start, (lambda q: int(self.plan.steps * q) * int(1 / q))"
        "(self.plan.event.sampling_probability)), label",
        tests=(STEPS,),
    ),
    Mutant(
        trap=8,
        what="q is one over a whole number of batches",
        file=PLAN,
        old="return self.expected_batch / self.records",
        new="return 1 / int(self.records / self.expected_batch)",
        tests=(STEPS,),
    ),
    Mutant(
        trap=9,
        what="a private plan shuffles",
        file=PLAN,
        old="PoissonBatches(size, self.sampling_probability, stream)",
        new="ShuffledBatches(size, self.expected_batch, stream)",
        tests=(f"{POISSON}[100]",),
    ),
    Mutant(
        trap=10,
        what="the draw is cut at the expected batch",
        file=SAMPLING,
        old="generator.binomial(self.size, self.probability)",
        new="min(generator.binomial(self.size, self.probability), "
        "round(self.size * self.probability))",
        tests=(f"{CORE}test_poisson_draws_are_never_capped", f"{POISSON}[100]"),
    ),
    Mutant(
        trap=10,
        what="no more than three micro-batches",
        file=GRADIENT_SUMS,
        old="micro_batches(rows, int(self._size), self._pad)",
        new="micro_batches(rows, int(self._size), self._pad)[:3]",
        tests=(f"{POISSON}[100]",),
    ),
    Mutant(
        trap=14,
        what="noise is rounded to bfloat16",
        file=NOISE,
        old="        drawn *= self.std\n",
        new="        drawn[:] = torch.from_numpy(drawn).bfloat16().double().numpy()\n"
        "        drawn *= self.std\n",
        tests=(f"{TRAPS}test_noise_is_as_fine_as_float32_and_so_are_the_sums_of_a_bfloat16_model",),
    ),
    Mutant(
        trap=14,
        what="sums, and the noise on them, in the type of a bfloat16 model",
        file="wavedp/dp/clipping/__init__.py",
        old="full(torch.zeros_like(p.detach(), memory_format=torch.contiguous_format))",
        new="torch.zeros_like(p.detach(), memory_format=torch.contiguous_format)",
        tests=(f"{TRAPS}test_noise_is_as_fine_as_float32_and_so_are_the_sums_of_a_bfloat16_model",),
    ),
    Mutant(
        trap=20,
        what="every rank adds the same noise",
        file=GRADIENT_SUMS,
        old="        self.world.add_up(self._engine.sums)\n",
        new="        if not self.world.leads:\n"
        "            self.noise.add_to(self._engine.sums, step)\n"
        "        self.world.add_up(self._engine.sums)\n",
        tests=(f"{RANKS}test_the_noise_is_there_once_whatever_the_number_of_ranks",),
    ),
    Mutant(
        trap=20,
        what="noise is divided by the root of the number of ranks",
        file=GRADIENT_SUMS,
        old='GaussianNoise(self._std, streams["noise"])',
        new='GaussianNoise(self._std / self.world.size**0.5, streams["noise"])',
        tests=(f"{RANKS}test_the_noise_is_there_once_whatever_the_number_of_ranks",),
    ),
    Mutant(
        trap=20,
        what="ranks are averaged, as for ordinary gradients",
        file=DISTRIBUTED,
        old="torch.distributed.reduce(total, 0)",
        new="torch.distributed.reduce(total.div_(self.size), 0)",
        tests=(f"{RANKS}test_the_sum_is_that_of_one_rank_and_all_ranks_agree",),
    ),
    Mutant(
        trap=21,
        what="a resumed run draws the noise of its first steps again",
        file=TRAINER,
        old="training.add_noise(step)",
        new="training.add_noise(step - start)",
        tests=(RESUMED,),
    ),
    Mutant(
        trap=21,
        what="the step that was under way is taken for done",
        file=RESUME,
        old='"step": step,',
        new='"step": step + 1,',
        tests=(RESUMED,),
    ),
    Mutant(
        trap=21,
        what="the average starts anew",
        file=RESUME,
        old='        self.average.load_state_dict(state["average"])\n',
        new="",
        tests=(RESUMED,),
    ),
    Mutant(
        trap=21,
        what="a step that is taken again with other noise counts as paid",
        file="wavedp/dp/ledger.py",
        old="if noise is not None and replay and self.paid(event, what, noise):",
        new="if any(n for key, n in self._earlier.items() if key[:2] == (what, event)):",
        tests=(
            "tests/dp/test_resume.py::test_a_replay_without_the_identical_noise_is_charged_again",
        ),
    ),
    Mutant(
        trap=21,
        what="a checkpoint goes on without the ledger of its steps",
        file=TRAINER,
        old="        self.ledger.confirm(self.plan.event, self._asked + start)\n",
        new="",
        tests=("tests/dp/test_resume.py::test_a_checkpoint_whose_ledger_is_gone_is_refused[9]",),
    ),
    Mutant(
        trap=21,
        what="answers are given again without the ledger of their queries",
        file="wavedp/dp/queries.py",
        old="        ledger.confirm(plan.event, before + self._restored)\n",
        new="",
        tests=("tests/dp/test_queries.py::test_answers_whose_ledger_is_gone_are_refused",),
    ),
    Mutant(
        trap=22,
        what="a charge for every micro-batch",
        file=TRAINER,
        old="        training.world.together(\n",
        new="        from wavedp.dp.sampling import micro_batches\n"
        "        for part in micro_batches(\n"
        "            training._batches.at(step), int(training._size), False\n"
        "        )[1:]:\n"
        "            ledger.charge(self.plan.event, label, f'{tag} {part.index[0]}')\n"
        "        training.world.together(\n",
        tests=(STEPS,),
    ),
    Mutant(
        trap=22,
        what="steps of the plan are micro-batches",
        file=TRAINER,
        old="range(start, self.plan.steps), label",
        new="range(start, -(-self.plan.steps * training._size // self.plan.expected_batch)), label",
        tests=(STEPS,),
    ),
    Mutant(
        trap=26,
        what="a record joins if a float32 is below q: in steps of 2**-24",
        file=SAMPLING,
        old="generator.binomial(self.size, self.probability)",
        new="generator.binomial(self.size, np.ceil(self.probability * 2**24) / 2**24)",
        tests=(f"{CORE}test_poisson_is_cheap_for_a_billion_records_and_exact_for_tiny_q",),
    ),
]
