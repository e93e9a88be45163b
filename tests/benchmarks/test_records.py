"""Records of every version load; what is no record, or cannot be written, is one sentence."""

import json
import os
import time
from pathlib import Path

import pytest
from report_records import grid_of_records
from report_records import record as example

from benchmarks import hardware, record, run
from benchmarks.claims import Claim
from benchmarks.record import MIGRATIONS, SCHEMA_VERSION, Record, load, load_folder, save
from benchmarks.report import make_report
from wavedp.dp import UserError

KEPT = Path(__file__).parent / "records"
"""Records as runs wrote them, a folder per version: its oldest form and its newest."""
GRID = [
    *("suite=smoke", "method=dp_vae", "suite.grid.row=[pretrained]", "suite.samples=24"),
    *("dataset.private_records=64", "dataset.evaluation_records=300"),
    *("method.finetuning.expected_batch=16", "method.finetuning.steps=2"),
]


def grid(tmp_path, cache, *more):
    return [*GRID, f"results_dir={tmp_path}/results", f"cache_dir={cache}", *more]


# Versions -----------------------------------------------------------------------------------


def told(fields, loaded):
    """Whether a record says all that its file does."""
    if isinstance(fields, dict) and isinstance(loaded, dict):
        return all(key in loaded and told(value, loaded[key]) for key, value in fields.items())
    return fields == loaded


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_records_of_every_version_load(version):
    files = sorted((KEPT / f"v{version}").glob("*.json"))
    assert files, f"keep records of version {version} in {KEPT}/v{version}"
    records = load_folder(KEPT / f"v{version}")
    for path, loaded in zip(files, records, strict=True):
        fields = json.loads(path.read_text())
        assert fields["schema_version"] == version
        assert loaded.schema_version == SCHEMA_VERSION
        if version == SCHEMA_VERSION:
            assert told(fields, json.loads(loaded.model_dump_json()))


def test_every_older_version_has_a_migration():
    assert len(MIGRATIONS) == SCHEMA_VERSION - 1


def test_a_record_is_migrated_through_all_versions_since_and_its_file_stays(monkeypatch):
    class Later(Record):
        schema_version: int = 3
        runtime: str

    def renamed(fields):
        return {("host" if key == "hardware" else key): v for key, v in fields.items()}

    def named_back(fields):
        back = {("hardware" if key == "host" else key): v for key, v in fields.items()}
        return {**back, "runtime": fields["host"]["device"]}

    path = next((KEPT / "v1").glob("*.json"))
    before, as_it_was = path.read_bytes(), load(path)
    monkeypatch.setattr(record, "Record", Later)
    monkeypatch.setattr(record, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(record, "MIGRATIONS", (renamed, named_back))
    migrated = load(path)
    assert (migrated.schema_version, migrated.runtime) == (3, "cpu")
    assert migrated.metrics == as_it_was.metrics
    assert path.read_bytes() == before
    # What a migration finds missing is not a record of that version.
    path = path.with_name("no.json")
    with pytest.raises(UserError, match="not a record"):
        record.parse(b'{"schema_version": 1}', path)
    with pytest.raises(UserError, match="of schema 4, and this WaveDP reads schema 3 or older"):
        record.parse(b'{"schema_version": 4}', path)


# Bad input ----------------------------------------------------------------------------------

WHOLE = example().model_dump_json(indent=1)
NEWER = WHOLE.replace('"schema_version": 1', f'"schema_version": {SCHEMA_VERSION + 1}')
BAD = {
    "empty": "",
    "truncated": WHOLE[: len(WHOLE) // 2],
    "foreign": '{"hello": 1}',
    "a list": "[1, 2]",
    "too deep": "[" * 100_000,
    "of a version that is none": WHOLE.replace('"schema_version": 1', '"schema_version": 0'),
    "of a version in words": WHOLE.replace('"schema_version": 1', '"schema_version": "one"'),
    "with a field too many": WHOLE.replace("{", '{"loss": 1.0,', 1),
    "newer": NEWER,
    "of another cell": WHOLE,
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_record_is_one_sentence_that_names_the_file(name, tmp_path):
    save(example(seed=1), tmp_path)
    path = tmp_path / "a-cell.json"
    path.write_text(BAD[name])
    with pytest.raises(UserError) as caught:
        load_folder(tmp_path)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert "out of the results folder" in said
    assert "\n" not in said
    assert path.read_text() == BAD[name]


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    (tmp_path / "a-cell.json").mkdir()
    with pytest.raises(UserError, match=r"a-cell\.json cannot be read \(Is a directory\)"):
        load_folder(tmp_path)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not a record"):
        load(tmp_path / "bytes.json")


@pytest.mark.parametrize("content", [BAD["truncated"], NEWER])
@pytest.mark.parametrize("whose", ["own", "another"])
def test_a_grid_does_not_start_beside_what_it_cannot_read(
    whose, content, tmp_path, cache, in_root, monkeypatch
):
    """And a cell whose record it cannot read is not run again over it."""
    asked = grid(tmp_path, cache)
    name = run.identity_of(run.cells(asked)[0]) if whose == "own" else "another"
    path = tmp_path / "results" / "smoke" / "records" / f"{name}.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    monkeypatch.setattr(run, "run_cell", lambda *_: pytest.fail("a cell was started"))
    with pytest.raises(UserError, match=name):
        run.main(asked)
    files = [p for p in (tmp_path / "results").rglob("*") if p.is_file()]
    assert [(p, p.read_text()) for p in files] == [(path, content)]


def test_a_record_that_the_disk_does_not_take_leaves_the_old_one(tmp_path, monkeypatch):
    path = save(example(), tmp_path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device") as caught:
        save(example(fd=1.0), tmp_path)
    assert str(path) in str(caught.value)
    assert [(p, p.read_bytes()) for p in tmp_path.iterdir()] == [(path, before)]


@pytest.mark.parametrize("what", ["results_dir", "cache_dir"])
def test_a_folder_that_cannot_be_written_is_refused_before_any_cell(
    what, tmp_path, cache, in_root, monkeypatch
):
    asked = grid(tmp_path, cache, f"{what}={tmp_path}/theirs")
    monkeypatch.setattr(run, "run_cell", lambda *_: pytest.fail("a cell was started"))
    (tmp_path / "theirs").write_text("a file")
    with pytest.raises(UserError, match=f"theirs is a file.*{what}"):
        run.main(asked)
    (tmp_path / "theirs").unlink()
    (tmp_path / "theirs" / "smoke" / "records").mkdir(parents=True)
    theirs = str(tmp_path / "theirs")
    real = os.access

    def access(path, mode):  # root may write anywhere
        return not str(path).startswith(theirs) and real(path, mode)

    monkeypatch.setattr(hardware.os, "access", access)
    with pytest.raises(UserError, match=f"theirs.* cannot be written.*{what}"):
        run.main(asked)
    assert not [p for p in (tmp_path / "theirs").rglob("*") if p.is_file()]


def test_two_grids_of_one_folder_keep_their_records_apart(tmp_path, cache, in_root):
    assert run.main(grid(tmp_path, cache)) == 0
    folder = tmp_path / "results" / "smoke" / "records"
    [first] = folder.iterdir()
    before = first.read_bytes()
    assert run.main(grid(tmp_path, cache, "method.generator.width=64")) == 0
    assert first.read_bytes() == before
    widths = {r.config["method"]["generator"]["width"] for r in load_folder(folder)}
    assert widths == {64, 128}


# Clocks -------------------------------------------------------------------------------------


def test_durations_do_not_follow_the_clock_of_the_machine(tmp_path, cache, in_root, monkeypatch):
    hours = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(hours)))
    assert run.main(grid(tmp_path, cache)) == 0
    [found] = load_folder(tmp_path / "results" / "smoke" / "records")
    assert 0 < found.cost.sample_seconds < 60
    assert 0 < found.cost.score_seconds < 60


@pytest.mark.parametrize("when", [0, 2**33])
def test_a_record_of_another_time_is_seen_by_who_waits_for_it(when, tmp_path):
    """The file of a machine whose clock is wrong, in place of one that failed."""
    failed = example(reason="no memory")
    path = save(failed, tmp_path / "records")
    claim = Claim(tmp_path, tmp_path / "cache", failed.cell)
    before = path.stat().st_mtime
    with claim.taken():
        assert claim.settled() is None
    save(example(), tmp_path / "records")
    os.utime(path, (when, when))
    with claim.taken():
        assert claim.settled() == example()
    save(example(fd=2.0), tmp_path / "records")
    os.utime(path, (before, before))  # even where both files seem of the same moment
    with claim.taken():
        assert claim.settled() == example(fd=2.0)


def test_tables_do_not_depend_on_when_records_were_made(tmp_path):
    """Nor on clocks that run backwards, or are ahead by a century."""
    texts = []
    for times in (["2026-01-01T00:00:00Z"], ["2126-05-01T00:00:00+00:00", "1970-01-01T00:00:00Z"]):
        folder = tmp_path / times[0][:4] / "embedded"
        for number, found in enumerate(grid_of_records()):
            made = found.provenance.model_copy(update={"created": times[number % len(times)]})
            save(found.model_copy(update={"provenance": made}), folder / "records")
        make_report(folder)
        texts.append([(folder / name).read_text() for name in ("table.md", "summary.csv")])
    assert texts[0] == texts[1]
