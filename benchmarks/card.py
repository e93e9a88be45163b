"""The model card of a published generator: what its privacy is worth, and what it does not cover.

Numbers are those of the record, with all their digits: a rounded epsilon could promise too much.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence

from benchmarks.record import Privacy, Record
from benchmarks.registry import entries
from benchmarks.report.facts import ARROWS, clean, joined, label
from benchmarks.report.marks import EXPLANATION, NOT_PRIVATE, readings, shown_name


def card(record: Record, bundled: Sequence[str], files: Mapping[str, str]) -> str:
    """The card as Markdown.

    Args:
        record: of a private or non-private cell.
        bundled: the public parts that lie in the folder; what else the record names, a part reads
            itself from a file of the user's.
        files: SHA-256 by name, of the weights in the folder.
    """
    warning = not_a_release(record)
    parts = [
        *([f"**Not a release: {warning}**"] if warning else []),
        f"# {_title(record)}",
        _what(record),
        "## Privacy",
        _statement(record, warning),
        _table(("", ""), _facts(record.privacy)),
        *_queries(record.privacy),
        "## What this does not cover",
        _bullets(_limits(record, bundled)),
        "## Use",
        _use(record, bundled),
        "## Public weights",
        *_public(record),
        "## Scores",
        *_scores(record),
        "## Files",
        _table(("file", "SHA-256"), files.items()),
        f"Made by WaveDP {record.provenance.wavedp_version}, revision "
        f"{record.provenance.code_revision}, torch {record.provenance.torch_version}; "
        f"`record.json` is the record of the run, {clean(record.cell)}, without what depends on "
        "private records and is covered by no ε (its training time and scores that read them).",
    ]
    return "\n\n".join(parts) + "\n"


def not_a_release(record: Record) -> str | None:
    """Why the weights of a cell protect nobody; None if they are differentially private."""
    if record.row != "private":
        return (
            "these weights were finetuned without privacy (ε = ∞) and may tell what is in the "
            "private records."
        )
    if record.privacy.reproducible_noise:
        return (
            "the noise of these weights is reproducible, so whoever knows its seeds can take it "
            "away; no ε holds."
        )
    return None


def _title(record: Record) -> str:
    spent = f"ε = {record.privacy.epsilon_spent}" if record.row == "private" else "ε = ∞"
    return f"{label(record.method)}, finetuned on {clean(record.dataset)}, {spent}"


def _what(record: Record) -> str:
    return (
        f"A generator of images of {record.resolution} px by the method {clean(record.method)}, "
        f"finetuned on the private records of {clean(record.dataset)} (version "
        f"{clean(record.dataset_version)}) with seed {record.seed}."
    )


def _statement(record: Record, warning: str | None) -> str:
    privacy = record.privacy
    if warning:
        return f"None: {warning} What follows says how they were made, and is no guarantee."
    assert privacy.relation is not None
    return (
        f"The weights are (ε, δ)-differentially private with ε = {privacy.epsilon_spent} and "
        f"δ = {privacy.delta} under the relation {privacy.relation.replace('_', ' ')}, a record "
        f"being {privacy.unit}. The epsilon was recomputed from the ledger after the run. Samples "
        "and all else that is made of the weights alone are covered as they are."
    )


def _facts(privacy: Privacy) -> list[tuple[str, object]]:
    return [
        ("ε, spent", privacy.epsilon_spent),
        ("ε, target", privacy.epsilon_target),
        ("δ", privacy.delta),
        ("neighbouring relation", privacy.relation),
        ("privacy unit", privacy.unit),
        ("accountant", privacy.accountant),
        ("records, as declared", privacy.records),
        ("sampling", privacy.sampling),
        ("sampling probability", privacy.sampling_probability),
        ("expected batch", privacy.expected_batch),
        ("steps", privacy.steps),
        ("clip", privacy.clip),
        ("sensitivity, rounding included", privacy.sensitivity),
        ("noise multiplier", privacy.noise_multiplier),
        ("reproducible noise", "yes" if privacy.reproducible_noise else "no"),
    ]


def _queries(privacy: Privacy) -> list[str]:
    rows = [(q.sampling_probability, q.noise_multiplier, q.count) for q in privacy.queries]
    names = ("sampling probability", "noise multiplier", "number")
    return ["Queries in the ledger, all that touched private records:", _table(names, rows)]


def _limits(record: Record, bundled: Sequence[str]) -> list[str]:
    overlap = record.provenance.overlap or "not recorded"
    limits = [
        "Hyper-parameters: if they were chosen by looking at results on the same private records, "
        "that choice spends privacy, too, and is in no ε here.",
        "Other releases from the same records: their ε compose with this one. Other budgets, "
        "seeds, methods and repeated runs are other releases, and so are their samples and scores.",
        f"Scores: those marked {NOT_PRIVATE} read real images of the evaluation split, which no ε "
        "covers.",
        "Time: how long the training took depends a little on the batches that were drawn. It is "
        "left out of `record.json`.",
        "Reproducible noise: a run whose noise comes from given seeds is not a release. "
        + _noise(record),
        "Public weights: ε does not cover what they were trained on. Whether that shares images "
        f"with the private records: {overlap} (none: impossible by its making; checked: compared; "
        "unknown: nobody looked).",
        "Several records of one person: the unit is one record.",
        "Malice: the noise comes from Philox, which is not proven to hide its key, and the code "
        "was made to prevent mistakes (ARCHITECTURE.md of WaveDP, Limits).",
    ]
    others = sorted(set(record.provenance.weights) - set(bundled))
    if others:
        limits.append(
            f"Weights that are not in this folder: those of {joined(others)}, which the generator "
            "reads from a file of yours (see below)."
        )
    return limits


def _noise(record: Record) -> str:
    if record.row != "private":
        return "This one had no noise."
    if record.privacy.reproducible_noise:
        return "This one had them."
    return "This one took its seeds from the operating system, and they are gone."


def _use(record: Record, bundled: Sequence[str]) -> str:
    given = ['"path/of/this/folder"']
    if set(record.provenance.weights) - set(bundled):
        given.append('files={"part.setting": "your/file"}')
    package = (record.config["method"].get("package") or {}).get("name")
    if package:
        module = record.config["method"]["generator"]["_target_"].partition(".")[0]
        given.append(f"packages={[module]!r}")
    install = f" and {clean(package)}" if package else ""
    return (
        "```python\n"
        "from wavedp.published import load\n"
        f"generator = load({', '.join(given)})\n"
        'images = next(generator.generate(["a caption"], seed=0))  # uint8 [1, 3, R, R]\n'
        "```\n\n"
        f"It needs WaveDP{install}, and neither its harness nor its data. Files are checked "
        'against the SHA-256 in `config.json`. It is a `torch.nn.Module`: `.to("cuda")` moves it.'
    )


def _public(record: Record) -> list[str]:
    digests = record.provenance.weights
    if not digests:
        return ["None: the generator was made from nothing but private records."]
    method, known = record.config["method"], entries()
    names = {**method.get("weights", {}), **method.get("published", {})}
    rows = []
    for part, digest in digests.items():
        entry = known.get(str(names.get(part)))
        about = (entry.licence, entry.trained_on, entry.source) if entry else ("unknown",) * 3
        rows.append((part, names.get(part, "a file of the user's"), digest, *about))
    head = ("part", "name", "SHA-256", "licence", "trained on", "source")
    return [
        _table(head, rows),
        "What was finetuned is derived from them: look at their licences before you pass it on.",
    ]


def _scores(record: Record) -> list[str]:
    marks = readings(record)
    rows = [
        (
            f"{shown_name(name, marks[name])} {ARROWS[score.direction]}",
            score.value,
            score.standard_error,
            score.n_samples,
            score.protocol + (f"; not {score.unlike}" if score.unlike else ""),
        )
        for name, score in record.metrics.items()
    ]
    if not rows:
        return ["None were taken."]
    table = _table(("metric", "value", "standard error", "samples", "how"), rows)
    return [table, f"{EXPLANATION}."] if NOT_PRIVATE in table else [table]


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if value == math.inf:
        return "∞"
    return html.escape(clean(str(value)), quote=False).replace("|", "\\|")
