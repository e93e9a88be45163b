"""Traps of per-example gradients: losses, norms, clipping."""

from . import Mutant

ENGINES = "wavedp/dp/clipping/__init__.py"
BOOKKEEPING = "wavedp/dp/clipping/bookkeeping.py"
TWO_PASS = "wavedp/dp/clipping/two_pass.py"
PER_EXAMPLE = "wavedp/dp/clipping/per_example.py"
CALLS, FORMS = "wavedp/dp/clipping/calls.py", "wavedp/dp/clipping/gradients.py"
RULES, COMPUTING = "wavedp/dp/clipping/layers.py", "wavedp/dp/computing.py"
TRAINER = "wavedp/dp/trainer.py"
GRADIENT_SUMS = "wavedp/dp/gradient_sums.py"

SUMS = "tests/dp/test_clipping.py::"
SITES = "wavedp/dp/clipping/sites.py"
GUARDS = "tests/dp/test_guards.py::"
LAYERS = "tests/dp/test_layers.py::"
LOOP = f"{LAYERS}test_a_rule_equals_a_loop_over_single_examples"
BY_HAND = f"{SUMS}test_hand_worked_example"
MEAN = f"{SUMS}test_refuses_a_loss_that_is_already_averaged"
BOUND = f"{SUMS}test_sensitivity_no_record_moves_the_sum_by_more_than_the_clip"
POISON = f"{SUMS}test_a_record_that_is_not_finite_contributes_nothing"
HALF = "tests/dp/test_traps.py::test_norms_and_sums_of_bfloat16_operands_are_added_up_in_float32"

MUTANTS = [
    Mutant(
        trap=3,
        what="a loss that is a mean over the batch is accepted",
        file=ENGINES,
        old="if losses.shape != (rows,):",
        new="if losses.dim() > 1:",
        tests=(f"{MEAN}[bookkeeping]", f"{MEAN}[two_pass]"),
    ),
    Mutant(
        trap=3,
        what="gradients of the mean of losses",
        file=BOOKKEEPING,
        old="gradients_at(carriers, losses)",
        new="gradients_at(carriers, losses / len(losses))",
        tests=(BY_HAND,),
    ),
    Mutant(
        trap=12,
        what="weights of NaN",
        file=ENGINES,
        old="usable = mask & squared_norms.isfinite()",
        new="usable = mask",
        tests=(f"{POISON}[nan-bookkeeping]",),
    ),
    Mutant(
        trap=12,
        what="zero times NaN in a sum",
        file=SITES,
        old="(form if self.sound is None else form.cleared(self.sound)).weighted_sum",
        new="form.weighted_sum",
        tests=(
            f"{POISON}[nan-bookkeeping]",
            f"{POISON}[inf-bookkeeping]",
            f"{POISON}[nan-two_pass]",
        ),
    ),
    Mutant(
        trap=13,
        what="products in bfloat16",
        file=FORMS,
        old="return left.float() @ right.float()",
        new="return (left @ right).float()",
        tests=(f"{HALF}[gram]", f"{HALF}[tiles]", f"{HALF}[held]"),
    ),
    Mutant(
        trap=13,
        what="sums over positions in bfloat16",
        file=RULES,
        old="g.sum(1, dtype=_wide(g))",
        new="g.sum(1)",
        tests=(f"{HALF}[gram]",),
    ),
    Mutant(
        trap=13,
        what="an embedding's sums in bfloat16",
        file=FORMS,
        old="        b, t = self.left.shape\n        right = full(self.right)\n",
        new="        b, t = self.left.shape\n        right = self.right\n",
        tests=(
            "tests/dp/test_traps.py::"
            "test_norms_of_a_bfloat16_embedding_are_added_up_in_float32[False]",
        ),
    ),
    Mutant(
        trap=13,
        what="a Gram sum that cancels is trusted",
        file=FORMS,
        old="total.clamp_min(0) + self._rounding(torch.cat(sizes, 1))",
        new="total.clamp_min(0)",
        tests=(f"{LAYERS}test_terms_that_cancel_are_not_scaled_past_the_clip",),
    ),
    Mutant(
        trap=15,
        what="the norm of a sum is the sum of norms",
        file=FORMS,
        old="total = total + 2 * part.inner(other)",
        new="total = total + 0 * part.inner(other)",
        tests=(f"{LOOP}[dtype0-tied and used twice-bookkeeping]",),
    ),
    Mutant(
        trap=15,
        what="every use of a shared weight hands out a norm of its own",
        file=CALLS,
        old="uses[name] == 1",
        new="uses[name] >= 1",
        tests=(f"{LOOP}[dtype0-tied and used twice-two_pass]",),
    ),
    Mutant(
        trap=16,
        what="a layer that is used twice is not in the norm",
        file=CALLS,
        old="for name, form in gradients.items() if name not in counted]",
        new="for name, form in gradients.items() if name in ()]",
        tests=(f"{BOUND}[bookkeeping]",),
    ),
    Mutant(
        trap=16,
        what="a parameter used beside its module goes unnoticed",
        file=CALLS,
        old="own, whole = 0.05, ",
        new="own, whole = 2.0, ",
        tests=(f"{LAYERS}test_a_parameter_used_without_its_module_is_refused_by_name",),
    ),
    Mutant(
        trap=16,
        what="a trainable parameter that no optimizer holds goes unnoticed",
        file=TRAINER,
        old="    if missing:\n",
        new="    if missing and not held:\n",
        tests=("tests/dp/test_trainer.py::test_wrong_use_is_refused",),
    ),
    Mutant(
        trap=17,
        what="as many broadcast rows as records are taken for one each",
        file=CALLS,
        old="    elif lengths != {rows}:\n",
        new="    elif not lengths:\n",
        tests=(
            f"{LAYERS}test_one_row_of_ids_as_long_as_the_batch_is_not_taken_for_records",
            f"{SUMS}test_bookkeeping_refuses_a_broadcast_input",
        ),
    ),
    Mutant(
        trap=17,
        what="one row for all records is that of the first record",
        file=CALLS,
        old="args = tuple(x.expand(rows, *x.shape[1:]) for x in args)",
        new="args = tuple(torch.cat([x, x.new_zeros(rows - 1, *x.shape[1:])]) for x in args)",
        tests=(f"{LOOP}[dtype0-broadcast positions-bookkeeping]",),
    ),
    Mutant(
        trap=18,
        what="BatchNorm is let in",
        file=ENGINES,
        old="isinstance(module, nn.modules.batchnorm._BatchNorm)",
        new="isinstance(module, nn.SyncBatchNorm)",
        tests=(f"{SUMS}test_refuses_what_it_cannot_clip_by_name",),
    ),
    Mutant(
        trap=18,
        what="a loss that sees other records is let through",
        file=CALLS,
        old="bool(other.any())",
        new="False",
        tests=(
            f"{GUARDS}test_a_loss_that_sees_other_records_is_refused[layer-1-bookkeeping]",
            f"{GUARDS}test_a_loss_that_sees_other_records_is_refused[loss-1-two_pass]",
        ),
    ),
    Mutant(
        trap=18,
        what="a loss that sees other records without a gradient is let through",
        file=CALLS,
        old="(whole - other).abs() > 0.02",
        new="(whole - other).abs() > 1e9",
        tests=(
            f"{GUARDS}test_a_loss_that_sees_others_without_a_gradient_is_refused"
            "[by_largest-bookkeeping]",
        ),
    ),
    Mutant(
        trap=19,
        what="a clipped gradient for each view",
        file=GRADIENT_SUMS,
        old="                self._engine.add(batch, micro.mask.to(device))\n",
        new="                for _ in range(self._computing.views):\n"
        "                    self._engine.add(batch, micro.mask.to(device))\n",
        tests=(
            "tests/dp/test_computing.py::test_a_released_sum_with_views_is_bounded_by_the_clip",
            "tests/dp/test_traps.py::test_views_of_a_record_are_averaged_before_they_are_clipped",
        ),
    ),
    Mutant(
        trap=23,
        what="each layer clipped to C, book-keeping",
        file=BOOKKEEPING,
        old="weights.sum(form) for name",
        new="clipping_weights(form.squared_norms(), mask, self._clip).sum(form) for name",
        tests=(f"{BOUND}[bookkeeping]",),
    ),
    Mutant(
        trap=23,
        what="each layer clipped to C, reference",
        file=PER_EXAMPLE,
        old="        rows = full(gradient)\n",
        new="        rows = full(gradient)\n"
        "        factors = clip_factors(rows.flatten(1).square().sum(1), mask, clip)\n",
        tests=(f"{BOUND}[per_example]",),
    ),
    Mutant(
        trap=25,
        what="the padding entry of an embedding has a gradient",
        file=RULES,
        old="if layer.padding_idx is not None:",
        new="if layer.num_embeddings < 0:",
        tests=(f"{LOOP}[dtype0-embedding with padding-bookkeeping]",),
        error="wavedp.dp.errors.UserError",  # the engine compares itself with autograd
    ),
    Mutant(
        trap=25,
        what="norms of a grouped convolution as if it had one group",
        file=RULES,
        old="if self.layer.groups > 1 or worth_holding(",
        new="if worth_holding(",
        tests=(f"{LOOP}[dtype0-conv2d, depthwise-bookkeeping]",),
    ),
    Mutant(
        trap=25,
        what="every padding is zeros",
        file=RULES,
        old='"constant" if layer.padding_mode == "zeros" else layer.padding_mode',
        new='"constant"',
        tests=(f"{LOOP}[dtype0-conv2d, reflected-bookkeeping]",),
        error="wavedp.dp.errors.UserError",  # the engine compares itself with autograd
    ),
    Mutant(
        trap=27,
        what="losses times 65536, as for half precision",
        file=BOOKKEEPING,
        old="gradients_at(carriers, losses)",
        new="gradients_at(carriers, 65536 * losses)",
        tests=(BY_HAND,),
    ),
    Mutant(
        trap=30,
        what="the probe takes recomputed calls for further ones",
        file=CALLS,
        old="once = list(calls)",
        new="once = calls",
        tests=(
            "tests/dp/test_computing.py::test_recomputed_activations_change_nothing[bookkeeping]",
        ),
        error="ValueError",
    ),
    Mutant(
        trap=30,
        what="recomputed activations draw another dropout",
        file=COMPUTING,
        old="use_reentrant=False,",
        new="use_reentrant=False, preserve_rng_state=False,",
        tests=("tests/dp/test_computing.py::test_recomputed_activations_change_nothing[two_pass]",),
    ),
]
