"""Watching the calls of a model's layers: what per-example gradients are made from.

One run on a single record, the *probe*, lists the calls and checks that the rules find the same
gradients as autograd. From then on every layer's output passes through :class:`Handed`, which
changes nothing and, in the backward pass, hands the layer's rule what it needs as soon as the
output gradient is there. What the rule makes leaves the backward pass as the "gradient" of
carriers: zeros without storage, in the right shape. So there is no state beside the graph, and
the same code runs eagerly, compiled and under activation checkpointing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wavedp.dp.clipping import Batch, PerExampleLoss, check_losses, trainable
from wavedp.dp.clipping.gradients import HALF, Gradients, full
from wavedp.dp.clipping.layers import any_module
from wavedp.dp.clipping.sites import (
    Layer,
    Site,
    Weights,
    added,
    by_parameter,
    carrying,
    find_layers,
)
from wavedp.dp.errors import UserError


class Handed(torch.autograd.Function):
    """The identity on a layer's output; see the top of the file."""

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, watch: Watch, site: Site, count: int, *tensors: Tensor
    ) -> Tensor:
        """``tensors`` are ``count`` carriers and the layer's inputs."""
        ctx.watch, ctx.site = watch, site
        ctx.save_for_backward(*tensors[count:])
        return output.clone() if site.copied else output.view_as(output)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:  # type: ignore[override]
        inputs = ctx.saved_tensors
        with torch.autocast(slope.device.type, enabled=False):
            handed = ctx.site.hand_out(inputs, slope, ctx.watch.records, ctx.watch.weights)
        handed = [x.to(carrying(x.dtype)) for x in handed]
        return slope, None, None, None, *handed, *[None] * len(inputs)


@dataclass(frozen=True)
class _Seen:
    """A call that the probe saw, of one record."""

    layer: Layer
    inputs: tuple[Tensor, ...]
    slope: Tensor


@dataclass
class Watch:
    """Watches a model compute a loss.

    Args:
        model: its trainable parameters are the ones that matter.
        loss: one number per record.
        views: rows that the layers see for each record.
        norms_only: keep no more than norms of the layers whose parameters are used once.
        sites: the places where layers are called, in order; known after the probe.
        records: of the batch that is watched.
        weights: given for a pass that forms sums.
    """

    model: nn.Module
    loss: PerExampleLoss
    views: int = 1
    norms_only: bool = False
    sites: list[Site] = field(default_factory=list)
    records: int = 0
    weights: Weights | None = None
    _layers: list[Layer] = field(init=False)
    _places: dict[str, list[int]] = field(default_factory=dict)
    _carriers: list[list[Tensor]] = field(default_factory=list)
    _counts: dict[str, int] = field(default_factory=dict)
    _paused: bool = False

    def __post_init__(self) -> None:
        self._layers = find_layers(self.model)

    # The probe ------------------------------------------------------------------------------

    def probe(self, batch: Batch) -> bool:
        """List the calls for the first record and compare gradients with autograd's.

        The record stands in the batch twice: the loss of the first must not see the second, nor
        change if another stands in its place.

        Args:
            batch: at least one record; the first and the last are looked at.

        Returns:
            False if the record's gradients are not finite, so that nothing was shown.

        Raises:
            UserError: names the first parameter that differs, or the layer that does not fit.
        """
        twice = {name: torch.cat([rows[:1], rows[:1]]) for name, rows in batch.items()}
        self._compare_losses(twice, batch)
        device = next(self.model.parameters()).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            state = _random_state(device)
            expected = self._by_autograd(twice)
            _set_random_state(device, state)
            seen = self._seen(twice)
        found = [each.layer.rule(each.layer.call(each.inputs, each.slope, 1)) for each in seen]
        half = any(each.slope.dtype in HALF for each in seen)
        agree = self._agrees(expected, by_parameter([s.layer for s in seen], found), half)
        uses: dict[str, int] = {}
        for each in seen:
            for name in each.layer.parameters.values():
                uses[name] = uses.get(name, 0) + 1
        self.sites = [self._site(s, forms, uses) for s, forms in zip(seen, found, strict=True)]
        self._places = {layer.name: [] for layer in self._layers}
        for number, site in enumerate(self.sites):
            self._places[site.layer.name].append(number)
        return agree

    @torch.no_grad()
    def _compare_losses(self, twice: Batch, batch: Batch) -> None:
        """The first record's loss in other company, under the same random draws.

        Raises:
            UserError: it depends on the company.
        """
        pair = {name: torch.cat([rows[:1], rows[-1:]]) for name, rows in batch.items()}
        alone = {name: rows[:1] for name, rows in batch.items()}
        with repeatable(self.model) as again:
            found = []
            for company in (twice, pair, alone):
                again()
                losses = self.loss(self.model, company)
                check_losses(losses, len(next(iter(company.values()))))
                found.append(losses.float())
            # Other shapes draw other numbers: only a loss without any tells by its size.
            drawn = again()
        whole, *others = [losses.flatten()[0] for losses in (found[:2] if drawn else found)]
        for other in others:
            if bool(whole.isfinite() & ((whole - other).abs() > 0.02 * whole.abs() + 1e-6)):
                raise UserError(
                    "The loss of a record depends on other records of the batch, or on how many "
                    "there are; use layers and a loss that treat every record on its own."
                )

    def _by_autograd(self, twice: Batch) -> dict[str, Tensor | None]:
        losses = self.loss(self.model, twice)
        check_losses(losses, 2)
        names, parameters = zip(*trainable(self.model).items(), strict=True)
        found = torch.autograd.grad(losses[0], parameters, allow_unused=True)
        return dict(zip(names, found, strict=True))

    def _seen(self, twice: Batch) -> list[_Seen]:
        """The calls for the first record; output gradients are those of zeros added to outputs."""
        calls: list[tuple[Layer, tuple[Tensor, ...], Tensor]] = []

        def keeper(layer: Layer) -> Callable[..., Tensor]:
            def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Tensor:
                del module
                args, output = _per_record(layer, args, kwargs, output, 2 * self.views)
                tap = torch.zeros_like(output, requires_grad=True)
                calls.append((layer, args, tap))
                return torch.as_tensor(output + tap)

            return keep

        with self._hooked(keeper):
            losses = self.loss(self.model, twice)
            once = list(calls)  # checkpointed layers are called again in the backward pass
            slopes = torch.autograd.grad(
                losses[0], [tap for _, _, tap in once], allow_unused=True, materialize_grads=True
            )
        for (layer, _, _), slope in zip(once, slopes, strict=True):
            other = slope[self.views :]
            if bool(slope.isfinite().all()) and bool(other.any()):
                raise UserError(
                    f"The loss of a record depends on other records of the batch, through the "
                    f"output of layer {layer.name!r} or later; use layers and a loss that treat "
                    "every record on its own."
                )
        own = slice(0, self.views)
        return [
            _Seen(layer, tuple(x[own] for x in inputs), slope[own])
            for (layer, inputs, _), slope in zip(once, slopes, strict=True)
        ]

    def _agrees(
        self, expected: Mapping[str, Tensor | None], found: Mapping[str, Gradients], half: bool
    ) -> bool:
        # Loose enough for rounding, also where a gradient is zero but for rounding; what this
        # looks for is a gradient that is missing.
        own, whole = 0.05, 1e-2 if half else 1e-4
        size = added(g.float().square().sum() for g in expected.values() if g is not None).sqrt()
        if not bool(size.isfinite()):
            return False
        for name, parameter in trainable(self.model).items():
            zero = full(torch.zeros_like(parameter.detach()))
            mine = found[name].rows()[0].view_as(zero) if name in found else zero
            truth = expected[name]
            want = zero if truth is None else full(truth)
            wrong = (mine - want).norm()
            if bool(
                (wrong > own * torch.maximum(want.norm(), mine.norm())) & (wrong > whole * size)
            ):
                raise UserError(
                    f"The gradient of parameter {name} does not follow from the calls of its "
                    "module: it is used elsewhere, or changed on the way. Use "
                    "engine=per_example, or call the module that holds it."
                )
        return True

    def _site(self, seen: _Seen, found: Mapping[str, Gradients], uses: Mapping[str, int]) -> Site:
        late = seen.layer.rule is any_module
        alone = not late and all(uses[name] == 1 for name in seen.layer.parameters.values())
        forms = {} if late else {name: _on_meta(form) for name, form in found.items()}
        copied = any(getattr(module, "inplace", False) for module in self.model.modules())
        site = Site(seen.layer, forms, alone, not (alone and self.norms_only), copied, [])
        for x in site.hand_out(seen.inputs, seen.slope, 1, None):
            site.handed.append((x.shape[1:], x.dtype))
        return site

    # Runs -----------------------------------------------------------------------------------

    @contextmanager
    def watching(self, records: int, weights: Weights | None = None) -> Iterator[list[Tensor]]:
        """While open, :meth:`run` and its backward pass use the carriers that are given.

        Autograd forms no gradients of parameters then.

        Args:
            records: of the batch, padding included.
            weights: for the second pass of sites whose forms are not kept.
        """
        self.records, self.weights = records, weights
        self._carriers = [site.carriers(records, weights is not None) for site in self.sites]
        parameters = trainable(self.model).values()
        for parameter in parameters:
            parameter.requires_grad_(False)
        try:
            with self._hooked(self._hander):
                yield [carrier for carriers in self._carriers for carrier in carriers]
        finally:
            self._carriers, self.weights = [], None
            for parameter in parameters:
                parameter.requires_grad_(True)

    def run(self, batch: Batch) -> Tensor:
        """The losses ``[b]``, whose gradients by the carriers are what the rules make.

        Raises:
            UserError: the layers are not called as they were for the first record.
        """
        self._counts = dict.fromkeys(self._places, 0)
        losses = self.loss(self.model, batch)
        check_losses(losses, self.records)
        for name, places in self._places.items():
            if self._counts[name] != len(places):
                raise UserError(
                    f"Layer {name!r} is called {self._counts[name]} times for this batch and was "
                    f"called {len(places)} times for the first record; the calls must not depend "
                    "on data or chance, or use engine=per_example."
                )
        return losses

    @property
    def summed(self) -> list[str]:
        """The parameters whose sums leave a pass with weights, in order."""
        return [
            site.layer.parameters[name]
            for site in self.sites
            if not site.kept
            for name in site.forms
        ]

    def _hander(self, layer: Layer) -> Callable[..., Tensor]:
        def hand(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Tensor:
            del module
            if self._paused:
                return torch.as_tensor(output)
            args, output = _per_record(layer, args, kwargs, output, self.records * self.views)
            places = self._places[layer.name]
            number = self._counts[layer.name]
            self._counts[layer.name] = number + 1
            if not places:
                return torch.as_tensor(output)  # run() says so
            # A checkpointed layer is called again in the backward pass, for its saved inputs only.
            place = places[number % len(places)]
            carriers = self._carriers[place]
            if not carriers:
                return torch.as_tensor(output)
            handed = Handed.apply(output, self, self.sites[place], len(carriers), *carriers, *args)
            return torch.as_tensor(handed)

        return hand

    @contextmanager
    def _hooked(self, make: Callable[[Layer], Callable[..., Tensor]]) -> Iterator[None]:
        handles = [
            layer.module.register_forward_hook(make(layer), with_kwargs=True)
            for layer in self._layers
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def gradients(self, handed: Sequence[Tensor]) -> tuple[dict[str, Gradients], Tensor]:
        """Per-example gradients by parameter, as far as they are kept, and ``[b]`` squared norms.

        The norms are over all trained parameters.
        """
        rest = iter(handed)
        layers, found, norms, counted = [], [], [], set()
        self._paused = True  # a rule may run its module again
        for site in self.sites:
            forms, squared = site.take([next(rest) for _ in site.handed])
            layers.append(site.layer)
            found.append(forms)
            if squared is not None:
                norms.append(squared)
                counted |= {site.layer.parameters[name] for name in forms}
        self._paused = False
        gradients = by_parameter(layers, found)
        norms += [form.squared_norms() for name, form in gradients.items() if name not in counted]
        return gradients, added(norms)


def _per_record(
    layer: Layer, args: Any, kwargs: Any, output: Any, rows: int
) -> tuple[tuple[Tensor, ...], Tensor]:
    """The layer's inputs and output with one row for every row of the batch.

    Raises:
        UserError: something is not a tensor, or has another number of rows.
    """
    args = (*args, *kwargs.values()) if len(args) + len(kwargs) == 1 else args
    if (kwargs and len(args) != 1) or not all(isinstance(x, Tensor) for x in (*args, output)):
        raise UserError(
            f"Layer {layer.name!r} is called with keywords or with something that is not a "
            "tensor; pass tensors by position, or use engine=per_example."
        )
    lengths = {len(x) if x.dim() else 0 for x in args}
    if not lengths:
        raise UserError(
            f"Layer {layer.name!r} has parameters and is called without an input, so its gradient "
            "cannot be told apart by record; use engine=per_example, or freeze it."
        )
    if lengths == {1} and rows > 1:
        # One row for all records, such as position ids: give each record its own.
        args = tuple(x.expand(rows, *x.shape[1:]) for x in args)
        output = output.expand(rows, *output.shape[1:])
    elif lengths != {rows}:
        raise UserError(
            f"Layer {layer.name!r} got an input whose first dimension is "
            f"{sorted(lengths)[0]}, not the {rows} records of the batch; expand broadcast "
            "inputs to one row per record."
        )
    if output.dtype in HALF and layer.rule is not any_module:
        # What the layer itself computed with under autocast, at half the memory.
        args = tuple(x.to(output.dtype) if x.is_floating_point() else x for x in args)
    return tuple(x.detach() for x in args), output


def _on_meta(form: Gradients) -> Gradients:
    return form.rebuilt([x.to("meta") for x in form.tensors()])


def gradients_at(carriers: Sequence[Tensor], losses: Tensor) -> tuple[Tensor, ...]:
    """What leaves the backward pass; zeros from a layer that the loss does not depend on."""
    return torch.autograd.grad(
        losses.sum(), list(carriers), allow_unused=True, materialize_grads=True
    )


@contextmanager
def repeatable(model: nn.Module) -> Iterator[Callable[[], bool]]:
    """Gives a function after which the random draws since the start are drawn again.

    It says whether there have been any.
    """
    device = next(model.parameters()).device
    state = _random_state(device)

    def again() -> bool:
        drawn = any(
            now is not None and then is not None and not torch.equal(now, then)
            for now, then in zip(_random_state(device), state, strict=True)
        )
        _set_random_state(device, state)
        return drawn

    yield again


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.random.get_rng_state(), cuda


def _set_random_state(device: torch.device, state: tuple[Tensor, Tensor | None]) -> None:
    torch.random.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
