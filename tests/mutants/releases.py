"""Traps of what is accounted for, shown, kept and chosen."""

from . import Mutant

TRAINER, RESUME = "wavedp/dp/trainer.py", "wavedp/dp/resume.py"
GRADIENT_SUMS = "wavedp/dp/gradient_sums.py"
OPTIMIZERS, ENCODING = "wavedp/dp/optimizers.py", "wavedp/wavelet/encoders.py"
BOOKKEEPING = "wavedp/dp/clipping/bookkeeping.py"

TRAPS = "tests/dp/test_traps.py::"
ADAM = "tests/dp/test_optimizers.py::"
RELATION = (
    "tests/dp/test_accounting.py::"
    "test_the_relation_is_stated_because_replacing_a_record_costs_nearly_twice_as_much"
)
SEEN = f"{TRAPS}test_nothing_but_the_weights_depends_on_the_private_records"
ADAPTERS = f"{TRAPS}test_a_checkpoint_of_adapters_reproduces_the_trained_output"
CHOICE = f"{TRAPS}test_neither_the_end_nor_the_choice_of_weights_depends_on_the_records"
ENCODERS = "tests/contract/test_encoders.py::"

MUTANTS = [
    Mutant(
        trap=11,
        what="the accountant replaces a record",
        file="wavedp/dp/accountants/pld.py",
        old="NeighboringRelation.ADD_OR_REMOVE_ONE",
        new="NeighboringRelation.REPLACE_ONE",
        tests=(RELATION,),
    ),
    Mutant(
        trap=11,
        what="a budget for another relation is accepted",
        file="wavedp/dp/accounting.py",
        old="if self.relation != RELATION:",
        new="if not self.relation:",
        tests=(RELATION,),
    ),
    Mutant(
        trap=24,
        what="the noise stays in the second moment",
        file=OPTIMIZERS,
        old=' - group["noise_std"] ** 2',
        new="",
        tests=(
            f"{ADAM}test_hand_worked_step",
            f"{ADAM}test_removes_the_bias_of_the_noise_from_the_second_moment",
        ),
    ),
    Mutant(
        trap=24,
        what="the noise is taken away before the correction for the start",
        file=OPTIMIZERS,
        old='state["square"] / (1 - second ** state["step"]) - group["noise_std"] ** 2',
        new='(state["square"] - group["noise_std"] ** 2) / (1 - second ** state["step"])',
        tests=(f"{ADAM}test_hand_worked_step",),
    ),
    Mutant(
        trap=28,
        what="the training loss is printed",
        file=BOOKKEEPING,
        old="            losses = self._run(batch)\n",
        new="            losses = self._run(batch)\n            print(losses.mean().item())\n",
        tests=(f"{SEEN}[bookkeeping]",),
    ),
    Mutant(
        trap=28,
        what="the gradient norm is logged",
        file=TRAINER,
        old="                training.add_noise(step)\n",
        new="                norms = [t.norm() for t in training._engine.sums.values()]\n"
        "                __import__('logging').getLogger('wavedp').debug('gradients %s', norms)\n"
        "                training.add_noise(step)\n",
        tests=(f"{SEEN}[bookkeeping]", f"{SEEN}[two_pass]", f"{SEEN}[per_example]"),
    ),
    Mutant(
        trap=28,
        what="the ledger names the realised batch",
        file=TRAINER,
        old="ledger.charge(self.plan.event, label, ",
        new="ledger.charge(self.plan.event, "
        "f'{label}, {len(training._batches.at(step))} records', ",
        tests=(f"{SEEN}[bookkeeping]",),
    ),
    Mutant(
        trap=28,
        what="the trainer counts the micro-batches",
        file=TRAINER,
        old="                training.add_noise(step)\n",
        new="                parts = -(-len(training._batches.at(step)) // int(training._size))\n"
        "                self.parts = getattr(self, 'parts', 0) + parts\n"
        "                training.add_noise(step)\n",
        tests=(f"{SEEN}[bookkeeping]",),
    ),
    Mutant(
        trap=29,
        what="one of two adapter matrices is saved",
        file=RESUME,
        old="for name, p in self.parameters.items()}",
        new="for name, p in self.parameters.items() if 'down' not in name}",
        tests=(f"{ADAPTERS}[0.0]",),
    ),
    Mutant(
        trap=29,
        what="the last steps are not saved",
        file=RESUME,
        old="(last or stops or kept.due(step))",
        new="(stops or kept.due(step))",
        tests=(f"{ADAPTERS}[0.0]",),
    ),
    Mutant(
        trap=29,
        what="weights come back and their average does not",
        file=RESUME,
        old='        self.average.load_state_dict(state["average"])\n',
        new="",
        tests=(f"{ADAPTERS}[0.5]",),
    ),
    Mutant(
        trap=31,
        what="a changed buffer is let pass",
        file=GRADIENT_SUMS,
        old="            if changed:\n",
        new="            if len(changed) > len(self._buffers):\n",
        tests=(
            "tests/dp/test_trainer.py::test_a_buffer_that_learns_from_private_records_is_refused",
        ),
    ),
    Mutant(
        trap=31,
        what="codebooks move towards the private images that are encoded",
        file=ENCODING,
        old='        return {"tokens": in_parts(',
        new='        whole = torch.from_numpy(np.array(columns["images"]))\n'
        "        self.tokenizer.train()(to_float(whole))\n"
        '        return {"tokens": in_parts(',
        tests=(
            "tests/contract/test_methods.py::"
            "test_public_parts_that_are_not_finetuned_have_no_path_from_private_data[dp_wavelet]",
        ),
    ),
    Mutant(
        trap=32,
        what="images are centred by the mean of those they come with",
        file=ENCODING,
        old="self.tokenizer.encode(images, self.scales)",
        new="self.tokenizer.encode(\n                images - images.mean((0, 2, 3), keepdim=True),"
        " self.scales)",
        tests=(f"{ENCODERS}test_a_record_is_encoded_as_if_there_were_no_other[dp_wavelet]",),
    ),
    Mutant(
        trap=32,
        what="as many captions as the record with the most has",
        file=ENCODING,
        old='        lists = columns["captions"]\n',
        new='        lists = columns["captions"]\n'
        '        object.__setattr__(self, "captions", max(len(own) for own in lists))\n',
        tests=(
            f"{ENCODERS}test_a_record_with_more_and_longer_captions_changes_no_other[dp_wavelet]",
        ),
    ),
    Mutant(
        trap=33,
        what="training stops where gradients vanish",
        file=TRAINER,
        old="                training.add_noise(step)\n",
        new="                if not any(total.any() for total in training._engine.sums.values()):\n"
        "                    break\n"
        "                training.add_noise(step)\n",
        tests=(f"{CHOICE}[nothing to learn]",),
    ),
    Mutant(
        trap=33,
        what="the weights of the least training loss are kept",
        file=TRAINER,
        old="        resumable.finish()\n",
        new="                loss = float(per_example_loss(model, columns).detach().sum())\n"
        "                if step == start or loss < least:\n"
        "                    least = loss\n"
        "                    best = {name: p.detach().clone() for name, p in parameters.items()}\n"
        "        for name, parameter in parameters.items():\n"
        "            parameter.data.copy_(best[name])\n"
        "        resumable.finish()\n",
        tests=(f"{CHOICE}[back and forth]",),
    ),
]
