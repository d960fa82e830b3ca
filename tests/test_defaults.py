"""Options: where they come from, and what is said of wrong ones."""

import pytest

from defaults import get_default_cfg, load_cfg


def write(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


def test_options_come_from_defaults_base_file_and_command_line_in_turn(tmp_path):
    write(tmp_path, "base.yaml", "SOLVER: {BASE_LR: 0.5, GAMMA: 0.2}\nSEED: 7\n")
    leaf = write(tmp_path, "leaf.yaml", "BASE: base.yaml\nSOLVER: {GAMMA: 0.3}\n")
    cfg = load_cfg(leaf, ["SEED", "9"])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.GAMMA, cfg.SEED) == (0.5, 0.3, 9)
    assert cfg.SOLVER.MOMENTUM == get_default_cfg().SOLVER.MOMENTUM
    assert cfg.is_frozen()


def test_each_default_tree_is_its_own():
    get_default_cfg().SEED = 99
    assert get_default_cfg().SEED != 99


@pytest.mark.parametrize(
    "words, expected",
    [
        (["SOLVER.BASE_LR", "1e-3"], 0.001),
        (["SOLVER.BASE_LR", "1"], 1.0),
        (["SOLVER.MILESTONES", "[3, 4]"], [3, 4]),
        (["INPUT.DATA_ROOT", "123"], "123"),
        (["SOLVER.AMP", "off"], "off"),
        (["DETERMINISTIC", "True"], True),
    ],
)
def test_values_keep_the_type_of_their_option(words, expected):
    cfg = load_cfg(None, words)
    for part in words[0].split("."):
        cfg = cfg[part]
    assert cfg == expected and type(cfg) is type(expected)


def test_a_bare_off_in_a_file_stays_a_word(tmp_path):
    assert load_cfg(write(tmp_path, "a.yaml", "SOLVER: {AMP: off}")).SOLVER.AMP == "off"


@pytest.mark.parametrize(
    "words, error, message",
    [
        (["SOLVER.BASELR", "1"], KeyError, "nearest is 'SOLVER.BASE_LR'"),
        (["SOLVER", "1"], KeyError, "no option 'SOLVER'"),
        (["SEED", "x"], ValueError, "SEED must be of type int, but is 'x'"),
        (["SEED", "1.5"], ValueError, "SEED must be of type int"),
        (["SEED"], ValueError, "pairs KEY VALUE"),
    ],
)
def test_wrong_words_are_named(words, error, message):
    with pytest.raises(error, match=message):
        load_cfg(None, words)


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config file at .*none.yaml"):
        load_cfg(tmp_path / "none.yaml")
    with pytest.raises(FileNotFoundError, match=r"named as BASE in .*a.yaml"):
        load_cfg(write(tmp_path, "a.yaml", "BASE: none.yaml"))
    with pytest.raises(ValueError, match="in a circle"):
        load_cfg(write(tmp_path, "b.yaml", "BASE: b.yaml"))
    with pytest.raises(ValueError, match="not a YAML file"):
        load_cfg(write(tmp_path, "c.yaml", "a: [1"))
    with pytest.raises(ValueError, match="holds a list"):
        load_cfg(write(tmp_path, "d.yaml", "- 1"))


def test_a_dumped_config_loads_to_the_same_options(tmp_path):
    cfg = load_cfg(None, ["SOLVER.AMP", "bf16", "INPUT.DATA_ROOT", "123", "SOLVER.MILESTONES", "[]"])
    assert load_cfg(write(tmp_path, "config.yaml", cfg.dump())) == cfg
