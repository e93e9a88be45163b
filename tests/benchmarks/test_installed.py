"""Methods that other packages bring: small distributions, written to disk and put on the path."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import new, pretrain, run
from benchmarks.config import cells, choices, compose
from benchmarks.installed import installed
from benchmarks.record import load_folder
from wavedp.dp import UserError

ROOT = Path(__file__).resolve().parents[2]
RAISES = "raise RuntimeError('code of a package ran before its method was chosen')\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def distribution(site, name, version="1.0", **methods):
    """What pip leaves of a package: its name and version, and where its methods are."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    write(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{method} = {place}" for method, place in methods.items()]
    write(info / "entry_points.txt", "\n".join(["[wavedp.methods]", *lines]) + "\n")
    return info


def bring(site, method="foreign", package="foreign_package"):
    """A package with the method that ``benchmarks.new`` writes, moved as CONTRIBUTING.md says."""
    code, config = new.skeleton(method).values()
    write(site / package / "__init__.py", "")
    write(site / package / f"{method}.py", code)
    config = config.replace(f"baselines.{method}.", f"{package}.{method}.")
    write(site / package / "method" / f"{method}.yaml", config)
    return site / package


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on Python's path, with a name that Hydra could misread."""
    folder = tmp_path / "site, it's {mine}"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "foreign_package"]:
        del sys.modules[name]


@pytest.fixture
def foreign(site):
    bring(site)
    distribution(site, "foreign-methods", foreign="foreign_package")
    return site


def test_without_packages_methods_are_those_of_the_project():
    own = {path.stem for path in (ROOT / "configs" / "method").glob("*.yaml")}
    assert set(choices("method")) - {method.name for method in installed()} == own
    assert "package" not in compose(["method=dp_vae"]).method


def test_a_method_is_found_listed_and_named_in_errors(foreign):
    assert "foreign" in choices("method")
    assert "foreign" not in choices("dataset")
    config = compose(["method=foreign", "suite=smoke", "method.generator.latent=3"])
    assert config.method.name == "foreign"
    assert (config.method.generator.latent, config.method.finetuning.steps) == (3, 20)
    with pytest.raises(UserError, match="Did you mean foreign"):
        compose(["method=foregn"])
    with pytest.raises(UserError, match=r"choose one of .*, foreign"):
        compose(["method=nothing_like_it"])
    grid = cells(["suite=quick", "suite.grid.method=[foreign,dp_merf]"])
    assert {cell.config.method.name for cell in grid} == {"foreign", "dp_merf"}


def test_it_runs_and_its_record_names_the_package(foreign, tmp_path, cache, in_root):
    small = ["suite.samples=24", "dataset.private_records=64", "dataset.evaluation_records=300"]
    small += ["method.finetuning.steps=2", "privacy.epsilon=[10]", "suite.grid.row=[private]"]
    places = [f"results_dir={tmp_path}/results", f"cache_dir={cache}"]
    assert run.main(["suite=smoke", "method=foreign", *small, *places]) == 0
    (record,) = load_folder(tmp_path / "results" / "smoke" / "records")
    assert (record.method, record.status) == ("foreign", "ok")
    assert record.config["method"]["package"] == {"name": "foreign-methods", "version": "1.0"}
    assert str(foreign) not in json.dumps(record.model_dump(mode="json"))


def test_a_sweep_finds_it(foreign):
    bring(foreign, "other", "other_package")
    distribution(foreign, "other", other="other_package")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sweep", "method=foreign", "--cfg", "job"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(foreign)])},
    )
    assert done.returncode == 0, done.stderr
    assert "_target_: foreign_package.foreign.Foreign" in done.stdout


def test_weights_that_it_pretrains_name_the_package(foreign, tmp_path, cache):
    with (foreign / "foreign_package" / "foreign.py").open("a") as code:
        code.write('\n\nclass Staged(Foreign):\n    stages = {"encoder": ()}\n')
    public = f"{{_target_:wavedp.data.toyworld.ToyWorld,resolution:32,seed:0,cache_dir:{cache}}}"
    spent = "{records:8,held_out:8,batch:4,steps:1,ema_decay:0}"
    chosen = [
        *("method=foreign", "method.generator._target_=foreign_package.foreign.Staged"),
        *(f"method.public={public}", f"+method.pretraining.encoder={spent}"),
        *(f"+method.weights.encoder={tmp_path}/encoder.safetensors", f"cache_dir={cache}"),
    ]
    assert pretrain.main(chosen) == 0
    made = json.loads((tmp_path / "encoder.json").read_text())
    assert made["package"] == {"name": "foreign-methods", "version": "1.0"}


def test_another_version_or_package_is_another_cell(site):
    bring(site)
    identities = set()
    for name, version in (("a", "1.0"), ("a", "1.1"), ("b", "1.0"), ("a", "1.0")):
        info = distribution(site, name, version, foreign="foreign_package")
        identities.add(cells(["method=foreign"])[0].identity({}))
        for file in info.iterdir():
            file.unlink()
        info.rmdir()
    assert len(identities) == 3


def test_a_method_of_the_project_is_the_same_cell_whatever_is_installed(site):
    before = cells(["method=dp_vae"])[0].identity({})
    bring(site)
    distribution(site, "foreign-methods", foreign="foreign_package")
    assert cells(["method=dp_vae"])[0].identity({}) == before


def test_its_config_uses_parts_of_the_project_and_cannot_replace_them(foreign):
    parts = foreign / "foreign_package" / "parts"
    write(parts / "toyworld.yaml", "public: replaced\n")
    write(parts / "own.yaml", "generator: {latent: 5}\n")
    config = foreign / "foreign_package" / "method" / "foreign.yaml"
    lines = [f"  - {part}" for part in ("/parts/toyworld@_here_", "_self_", "/parts/own@_here_")]
    text = config.read_text().replace("public: null\n", "")
    config.write_text("\n".join(["defaults:", *lines, text]))
    method = compose(["method=foreign"]).method
    assert method.public["_target_"] == "wavedp.data.toyworld.ToyWorld"
    assert method.generator.latent == 5


def test_packages_do_not_see_each_others_configs(foreign):
    bring(foreign, "other", "other_package")
    distribution(foreign, "other", other="other_package")
    write(foreign / "other_package" / "method" / "foreign.yaml", "name: hijacked\n")
    assert compose(["method=foreign"]).method.name == "foreign"
    assert compose(["method=other"]).method.name == "other"


@pytest.mark.parametrize("place", ["foreign_package", "foreign_package.inner"])
def test_nothing_of_a_package_is_run_to_find_its_methods(site, place):
    folder = bring(site)
    write(folder / "__init__.py", RAISES)
    write(folder / "inner" / "__init__.py", RAISES)
    config = (folder / "method" / "foreign.yaml").read_text()
    inner = config.replace("name: foreign", "name: inner")
    write(folder / "inner" / "method" / "foreign.yaml", inner)
    distribution(site, "foreign-methods", foreign=place)
    found = compose(["method=foreign"]).method.name
    assert found == ("inner" if place.endswith("inner") else "foreign")


@pytest.mark.parametrize(
    "place",
    ["not_there", "not_there.inner", "foreign_package", "json", "no-module", "", ".", "sys"],
)
def test_a_package_without_the_config_is_refused_only_where_it_is_chosen(site, place):
    write(site / "foreign_package" / "__init__.py", "")
    distribution(site, "foreign-methods", foreign=place)
    with pytest.raises(UserError, match=r"foreign-methods 1\.0 .* method/foreign\.yaml") as caught:
        compose(["method=foreign"])
    assert "\n" not in str(caught.value)
    assert compose(["method=dp_vae"]).method.name == "dp_vae"


def test_a_name_that_is_taken_is_refused_only_where_it_is_chosen(foreign):
    distribution(foreign, "another", foreign="foreign_package", dp_merf="foreign_package")
    with pytest.raises(UserError, match=r"in another 1\.0 and in foreign-methods 1\.0"):
        compose(["method=foreign"])
    with pytest.raises(UserError, match=r"in WaveDP and in another 1\.0"):
        compose(["method=dp_merf"])
    assert compose(["method=dp_vae"]).method.name == "dp_vae"


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda text: b"", "foreign lacks name, generator"),
        (lambda text: b"name: foreign", "foreign lacks generator"),
        (
            lambda text: text.replace("_target_", "target").encode(),
            "foreign lacks generator._target_",
        ),
        (lambda text: text.replace("weights: {}", "").encode(), "foreign lacks weights"),
        (lambda text: b"- foreign", "cannot be read"),
        (lambda text: text.replace("${dataset", "${datasets").encode(), "datasets"),
        (lambda text: text.encode() + b"also: [this", "foreign.yaml"),
        (lambda text: text.encode() + b"# \xff", "UTF-8"),
        (lambda text: b"defaults: [nowhere]\n" + text.encode(), "nowhere"),
    ],
)
def test_a_damaged_config_is_one_sentence(damage, named, foreign):
    config = foreign / "foreign_package" / "method" / "foreign.yaml"
    config.write_bytes(damage(config.read_text()))
    with pytest.raises(UserError, match=named) as caught:
        compose(["method=foreign"])
    assert "\n" not in str(caught.value)


def test_code_that_cannot_be_imported_is_one_sentence_before_any_cell(
    foreign, tmp_path, cache, in_root, monkeypatch
):
    monkeypatch.setattr(run, "run_cell", lambda *_: pytest.fail("a cell was started"))
    write(foreign / "foreign_package" / "foreign.py", "import a_module_that_is_nowhere\n")
    places = [f"results_dir={tmp_path}/results", f"cache_dir={cache}", "suite=smoke"]
    with pytest.raises(UserError, match=r"foreign_package.*'a_module_that_is_nowhere'") as caught:
        run.main([*places, "method=foreign"])
    assert "\n" not in str(caught.value)


def test_a_name_that_a_package_has_is_no_name_for_a_new_method(foreign, monkeypatch):
    monkeypatch.setattr(new, "write", lambda *_: pytest.fail("something was written"))
    with pytest.raises(UserError, match="already"):
        new.main(["method", "foreign"])


def contract(site, *arguments):
    """The command of CONTRIBUTING.md, in a process that finds the package."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/contract"]
    command += ["-k", "foreign", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_the_contract_tests_find_it_and_it_keeps_the_contract(foreign):
    done = contract(foreign)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


def test_the_contract_finds_a_package_that_opens_private_records(foreign):
    """In a module beside the method's, which has no test of its own."""
    package = foreign / "foreign_package"
    write(package / "helper.py", "from wavedp.dp.private import open_columns\n")
    code = (package / "foreign.py").read_text()
    (package / "foreign.py").write_text(f"{code}\nimport foreign_package.helper\n")
    done = contract(foreign, "-k", "foreign and seal")
    assert done.returncode == 1
    assert "helper.py" in done.stdout
