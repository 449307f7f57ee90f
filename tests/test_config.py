from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from mgs.config import Config, ViewsConfig, differing_keys
from mgs.config_files import config_of, load_config, load_run, load_runs, save_config
from mgs.errors import UserError
from mgs.methods.mgs import MGSOptions

REPOSITORY = Path(__file__).parents[1]


def write(folder, text, name="run.yaml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_the_papers(tmp_path):
    config = load_config(write(tmp_path, "{}"))
    train, model, options = config.train, config.model, config.options
    assert (train.lr, train.final_lr, train.weight_decay, train.batch_size) == (5e-6, 5e-7, 5e-4, 12)
    assert (train.clip_gradient, config.seed, model.clip) == (1.0, 42, "ViT-B/16")
    assert (model.frozen_blocks, model.freeze_stem, config.method) == (0.5, False, "mgs")
    assert (options.templates, options.correspondence, options.temperature) == ("joint", "both", 1.0)
    assert (config.views.antialias, config.views.layout) == (False, "grid")
    epochs = {
        name: load_config(REPOSITORY / f"configs/{name}.yaml").train.epochs
        for name in ("agiqa1k", "agiqa3k", "aigciqa2023", "aigiqa20k")
    }
    assert epochs == {"agiqa1k": 20, "agiqa3k": 15, "aigciqa2023": 15, "aigiqa20k": 15}


def test_the_command_line_wins_over_the_file_and_the_file_over_its_base(tmp_path):
    write(tmp_path, "seed: 1\ntrain: {lr: 1e-3, epochs: 3}", "base.yaml")
    path = write(tmp_path, "base: base.yaml\ntrain: {epochs: 4}")
    config = load_config(path, ["folds=[1,2]", "train.weight_decay=0"])
    assert (config.seed, config.train.lr, config.train.epochs) == (1, 1e-3, 4)
    assert (config.folds, config.train.weight_decay, config.name) == ([1, 2], 0, "run")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_loads_and_opens_with_its_launch_line(path):
    config = load_run(path)[0]
    launch = path.read_text(encoding="utf-8").splitlines()[0]
    assert launch.startswith(f"# python train.py {path.relative_to(REPOSITORY).as_posix()}")
    assert path.stem in (config.name, Path(config.runs).name)


def test_every_ablation_changes_one_thing_in_the_model_its_options_or_the_views():
    base = load_config(REPOSITORY / "configs/aigciqa2023.yaml")
    for path in (REPOSITORY / "configs/ablations").glob("*.yaml"):
        changed = differing_keys(base, load_config(path), ignored=("name", "train.head_lr"))
        assert len(changed) == (path.stem != "frozen-0.5"), (path, changed)


@pytest.mark.parametrize(
    ("text", "words", "parts"),
    [
        ("train: {lrr: 1}", [], ["run.yaml", "train.lrr", "unknown key", "lr, final_lr"]),
        ("colour: 1", [], ["run.yaml", "colour", "unknown key", "seed"]),
        ("train: {epochs: many}", [], ["run.yaml", "train.epochs", "many"]),
        ("train: {epochs: -1}", [], ["run.yaml", "train.epochs=-1", "0 or more"]),
        ("views: {layout: spiral}", [], ["run.yaml", "views.layout", "spiral", "grid"]),
        ("", ["train.lr=-1"], ["command line", "train.lr=-1", "above 0"]),
        ("", ["train.lr=.nan"], ["command line", "train.lr", "above 0"]),
        ("method: guess", [], ["run.yaml", "method=guess", "no such method", "mgs"]),
        ("", ["method=guess"], ["command line", "method=guess", "no such method"]),
        ("options: {colour: 1}", [], ["run.yaml", "options.colour", "unknown key", "templates"]),
        ("options: 3", [], ["run.yaml", "options=3", "options.templates"]),
        ("model: {templates: odd}", [], ["run.yaml", "options.templates", "odd", "joint"]),
        ("model: {patches: maybe}", [], ["run.yaml", "model.patches", "unknown key"]),
        ("", ["model.temperature=hot"], ["command line", "options.temperature=hot", "learned"]),
        ("", ["options.temperature=hot"], ["command line", "options.temperature=hot", "learned"]),
        ("", ["options.temperature=0"], ["command line", "options.temperature=0", "above 0"]),
        ("", ["model.frozen_blocks=1.5"], ["command line", "model.frozen_blocks=1.5", "0 to 1"]),
        ("", ["data.mos_range=[5,5]"], ["command line", "data.mos_range", "[worst, best]"]),
        ("", ["data.mos_range=[]"], ["command line", "data.mos_range", "[worst, best]"]),
        ("", ["folds=[0]"], ["command line", "folds", "begin at 1"]),
        ("", ["folds=[1,1]"], ["command line", "folds", "once"]),
        ("", ["name=../elsewhere"], ["command line", "name", "without /"]),
        ("", ["name=."], ["command line", "name", "without /"]),
        ("", ["folds[0]=2"], ["command line", "folds"]),
        ("", ["data.mos_range.0=1"], ["command line", "data"]),
        (
            "",
            ["train.final_lr=1e-7", "train.head_lr=1e-8"],
            ["command line", "train.head_lr", "not below train.final_lr"],
        ),
        ("base: '${nothing}'", [], ["run.yaml", "base"]),
        ("name: ${name}", [], ["run.yaml"]),
        ("base: run.yaml", [], ["run.yaml", "among its own bases"]),
        ("", ["train.epochs"], ["command line", "train.epochs", "key=value"]),
        ("", ["train.nothing=1"], ["command line", "train.nothing", "unknown key"]),
        ("", ["train=3"], ["command line", "train"]),
        ("", ["folds=[1"], ["command line"]),
        ("seed: [", [], ["run.yaml", "YAML"]),
        ("- a list", [], ["run.yaml", "mapping"]),
        ("base: missing.yaml", [], ["missing.yaml", "no such config"]),
        ("data: {root: '${nothing}'}", [], ["run.yaml", "data.root"]),
    ],
)
def test_a_wrong_config_is_one_line_naming_place_key_and_remedy(tmp_path, text, words, parts):
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, text), words)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_base_may_have_a_base(tmp_path):
    write(tmp_path, "seed: 1\ntrain: {epochs: 3}", "deep.yaml")
    write(tmp_path, "base: deep.yaml\nseed: 2", "middle.yaml")
    config = load_config(write(tmp_path, "base: middle.yaml"))
    assert (config.seed, config.train.epochs) == (2, 3)


def test_the_names_of_older_versions_are_read_in_files_and_words_and_lie_where_they_stand(tmp_path):
    old = "model: {frozen_blocks: 0.25, templates: separate, correspondence: whole, temperature: 2, patches: false}"
    new = (
        "model: {frozen_blocks: 0.25}\noptions: {templates: separate, correspondence: whole, temperature: 2}\n"
        "views: {layout: none}"
    )
    wanted = load_config(write(tmp_path, new))
    assert load_config(write(tmp_path, old)) == wanted
    words = ["model.templates=separate", "model.correspondence=whole", "model.temperature=2", "model.patches=false"]
    assert load_config(write(tmp_path, "model: {frozen_blocks: 0.25}"), words) == wanted
    write(tmp_path, old, "base.yaml")
    later = load_config(write(tmp_path, "base: base.yaml\nmodel: {temperature: learned}"), ["options.templates=joint"])
    assert later.options == MGSOptions("joint", "whole", "learned")
    record = "model: {patches: true, templates: joint}\nviews: {layout: cover}\noptions: {templates: separate}"
    assert load_config(write(tmp_path, record)) == load_config(
        write(tmp_path, "views: {layout: cover}\noptions: {templates: separate}")
    )
    with pytest.raises(UserError, match=r"command line: model.patches=true: say views.layout=grid"):
        load_config(write(tmp_path, "views: {layout: none}"), ["model.patches=true"])
    assert config_of({"name": "run", **OmegaConf.to_container(OmegaConf.create(old))}) == wanted


@pytest.mark.parametrize(
    ("text", "words", "problem"),
    [
        (
            "model: {patches: false}",
            ["views.layout=cover"],
            r"run\.yaml: model\.patches=false, beside views\.layout=cover",
        ),
        ("method: ''", [], r"run\.yaml: method=: no such method"),
        ("model: {temperature: 2}\noptions: 3", [], r"run\.yaml: "),
    ],
)
def test_old_names_and_methods_that_make_no_sense_are_one_line(tmp_path, text, words, problem):
    with pytest.raises(UserError, match=problem):
        load_config(write(tmp_path, text), words)


@pytest.mark.parametrize("text", ["options:", "options: {}", "method: mgs", "{}"])
def test_options_that_are_not_given_are_the_methods_defaults(tmp_path, text):
    config = load_config(write(tmp_path, text))
    assert (config.method, config.options) == ("mgs", MGSOptions())


def test_configs_whose_options_differ_in_kind_are_compared_key_by_key():
    one, other = Config(name="x"), Config(name="x", options=MGSOptions())
    wanted = ["options.correspondence", "options.temperature", "options.templates"]
    assert differing_keys(one, other) == differing_keys(other, one) == wanted
    assert differing_keys(one, other, ignored=wanted[:2]) == wanted[2:]


def test_a_missing_config_file_says_where_configs_are(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml: no such config file; see configs/"):
        load_config(tmp_path / "none.yaml")


def test_a_saved_config_reads_back_equal(tmp_path):
    config = load_config(write(tmp_path, "train: {lr: 3e-5}\noptions: {temperature: learned}\nfolds: [2]"))
    save_config(config, tmp_path / "saved" / "config.yaml")
    again = load_config(tmp_path / "saved" / "config.yaml")
    assert again == config
    assert differing_keys(again, config) == []


@given(
    st.floats(1e-9, 1),
    st.integers(1, 999),
    st.sampled_from(["learned", "clip", 2.5]),
    st.text("abc-_é 1", min_size=1).map("n".__add__),
)
def test_any_possible_config_survives_saving(tmp_path_factory, lr, epochs, temperature, name):
    config = Config(name=name, options=MGSOptions(temperature=temperature), views=ViewsConfig("grid", antialias=False))
    config.train.lr, config.train.final_lr, config.train.epochs = lr, lr / 2, epochs
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    save_config(config, path)
    assert load_config(path) == config


def test_without_a_config_every_dataset_found_is_trained_and_else_the_demo(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ((demo,),) = load_runs(["seed=3"])
    assert (demo.name, demo.seed) == ("demo", 3)
    assert "data/README.md" in capsys.readouterr().out
    (tmp_path / "data" / "AGIQA-3K").mkdir(parents=True)
    (tmp_path / "data" / "AGIQA-3K" / ".DS_Store").touch()  # a folder that looks empty is no dataset
    assert [config.name for (config,) in load_runs([])] == ["demo"]
    capsys.readouterr()
    for name in ("AIGIQA-20K", "AIGCIQA2023", "AGIQA-1K", "AGIQA-3K"):
        (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name / "table.csv").touch()
    assert [config.name for (config,) in load_runs([])] == ["agiqa1k", "agiqa3k", "aigciqa2023", "aigiqa20k"]
    assert capsys.readouterr().out == ""
    write(tmp_path, "seed: 5", "a.yaml")
    assert [(config.name, config.seed) for (config,) in load_runs(["a.yaml", "name=b.yaml"])] == [("b.yaml", 5)]


def test_what_ships_is_found_from_any_folder_and_what_is_there_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ((ablation,),) = load_runs(["configs/ablations/no-fragments.yaml", "base=configs/demo.yaml"])
    assert (ablation.data.dataset, ablation.options.correspondence) == ("demo", "whole")
    (tmp_path / "configs").mkdir()
    write(tmp_path, "seed: 7", "configs/demo.yaml")
    assert load_runs([])[0][0].seed == 7


def test_a_table_named_on_the_command_line_needs_no_yaml(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "AGIQA-3K" / "images").mkdir(parents=True)  # which would be trained otherwise
    ((config,),) = load_runs(["data.table=my/mos.csv"])
    assert (config.name, config.data.dataset, config.data.table) == ("mos", "custom", "my/mos.csv")
    ((config,),) = load_runs(["data.table=my/mos.csv", "name=x"])
    assert config.name == "x"
