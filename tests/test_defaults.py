"""Options: where they come from, and what is said of wrong ones."""

import fnmatch

import pytest

from defaults import RANGES, get_default_cfg, load_cfg, read_cfg
from utils.errors import UserError
from utils.options import check_ranges, flatten


def write(folder, name, text):
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


def test_options_come_from_defaults_base_file_and_command_line_in_turn(tmp_path):
    write(tmp_path, "base.yaml", "SOLVER: {BASE_LR: 1e-3, GAMMA: 0.2, AMP: off, MILESTONES: []}\nSEED: 7\n")
    leaf = write(tmp_path, "leaf.yaml", "BASE: base.yaml\nSOLVER: {GAMMA: 0.3, MILESTONES: [3]}\n")
    cfg = load_cfg(leaf, ["SEED", "9"])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.GAMMA, cfg.SEED) == (0.001, 0.3, 9)
    assert (cfg.SOLVER.AMP, cfg.SOLVER.MILESTONES) == ("off", [3])
    assert cfg.SOLVER.MOMENTUM == get_default_cfg().SOLVER.MOMENTUM
    assert cfg.is_frozen() and get_default_cfg().SEED == 1  # the defaults themselves are unchanged


@pytest.mark.parametrize(
    "words, expected",
    [
        (["SOLVER.BASE_LR", "1e-3"], 0.001),
        (["INPUT.DATA_ROOT", "123"], "123"),
        (["SOLVER.AMP", "off"], "off"),
        (["DETERMINISTIC", "false"], False),
        (["SOLVER.MILESTONES", "(3, 4)"], [3, 4]),
        (["MODEL.RPN.ASPECT_RATIOS", "[1, 2.5]"], [1, 2.5]),
        (["SEED", "1", "SEED", "2"], 2),
    ],
)
def test_values_keep_the_type_of_their_option(words, expected):
    cfg = load_cfg(None, words)
    for part in words[0].split("."):
        cfg = cfg[part]
    assert cfg == expected and type(cfg) is type(expected)


@pytest.mark.parametrize(
    "words, message",
    [
        (["solver.base_lr", "1"], "no option 'solver.base_lr'; the nearest is 'SOLVER.BASE_LR'"),
        (["SEED", "[" * 300], "SEED must be of type int"),
        (["SEED", "-" * 100000 + "1"], r"SEED must be of type int, but is '-+\.\.\.-+1'$"),
        (["DETERMINISTIC", "1"], "DETERMINISTIC must be of type bool"),
        (["SOLVER.BASE_LR", "nan"], r"SOLVER.BASE_LR must be of type float \(and finite\), but is 'nan'"),
        (["SEED"], "pairs KEY VALUE"),
        (["SEED=3"], "pairs KEY VALUE.*stands a space, not ="),
    ],
)
def test_wrong_words_are_named(words, message):
    with pytest.raises(UserError, match=message):
        load_cfg(None, words)


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config file at .*none.yaml"):
        load_cfg(tmp_path / "none.yaml")
    with pytest.raises(FileNotFoundError, match=r"named as BASE in .*a.yaml"):
        load_cfg(write(tmp_path, "a.yaml", "BASE: none.yaml"))
    write(tmp_path, "c.yaml", "BASE: b.yaml")
    with pytest.raises(UserError, match=r"in a circle: .*b.yaml -> .*c.yaml -> .*b.yaml"):
        load_cfg(write(tmp_path, "b.yaml", "BASE: c.yaml"))


LAUGHS = ", ".join(["&x0 [a]"] + [f"&x{i + 1} [{', '.join([f'*x{i}'] * 10)}]" for i in range(12)])
"""Lists, the last of which has 10 ** 12 words if it is ever written out."""

WRONG = {
    "unknown key": ("SOLVER: {BASE_LRR: 1}", "no option 'SOLVER.BASE_LRR'; the nearest is 'SOLVER.BASE_LR'"),
    "key of another type": ("1: 2", "no option '1'"),
    "section as option": ("SOLVER: 3", "no option 'SOLVER'"),
    "option as section": ("SEED: {a: 1}", "SEED must be of type int, but is {'a': 1}"),
    "no value": ("SEED:", "SEED must be of type int, but is None"),
    "wrong elements": ("SOLVER: {MILESTONES: [1, a]}", "SOLVER.MILESTONES must be of type list of int"),
    "key twice": ("SEED: 1\nSEED: 2", r"SEED comes twice in .*line 2"),
    "list as base": ("BASE: [a]", r"BASE must be the path of a config file, but is \['a'\]"),
    "recursive option": ("SEED: &a {x: *a}", "SEED must be of type int"),
    "nested deeply": ("[" * 500, "in UTF-8: maximum recursion depth exceeded"),
    "laughs as list": (f"SOLVER: {{MILESTONES: [{LAUGHS}]}}", "MILESTONES must be of type list of int"),
    "list": ("- 1", "holds a list"),
    "not UTF-8": (b"OUTPUT_DIR: caf\xe9\n", "is not a YAML file of options in UTF-8: unacceptable character"),
    "value unlike its tag": ("SEED: !!timestamp x", "is not a YAML file of options in UTF-8: "),
}


@pytest.mark.parametrize("text, message", WRONG.values(), ids=WRONG)
def test_faults_of_a_file_are_one_sentence_that_names_it(text, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        load_cfg(write(tmp_path, "a.yaml", text))
    sentence = caught.value.args[0]
    assert sentence.startswith(str(tmp_path / "a.yaml")) and "\n" not in sentence and len(sentence) < 500


def test_keys_that_yaml_merges_are_not_taken_for_doubles(tmp_path):
    leaf = write(tmp_path, "a.yaml", "SOLVER: &a {GAMMA: 0.3}\nMODEL: {OIM: {<<: {NUM_IDS: 3}, NUM_IDS: 4}}\n")
    assert load_cfg(leaf).SOLVER.GAMMA == 0.3
    assert load_cfg(leaf).MODEL.OIM.NUM_IDS == 4


def test_a_config_inside_another_file_opens_no_file(tmp_path):
    base = write(tmp_path, "base.yaml", "SEED: 7")
    assert read_cfg("SOLVER: {GAMMA: 0.3}", "the config in a.pth", ["SEED", "9"]).SOLVER.GAMMA == 0.3
    with pytest.raises(UserError, match=r"^the config in a.pth names a file to build on \(BASE\)"):
        read_cfg(f"BASE: {base}", "the config in a.pth")


def test_a_dumped_config_loads_to_the_same_options(tmp_path):
    cfg = load_cfg(None, ["SOLVER.AMP", "bf16", "INPUT.DATA_ROOT", "123", "SOLVER.MILESTONES", "[]"])
    assert load_cfg(write(tmp_path, "config.yaml", cfg.dump())) == cfg


OUT_OF_RANGE = {
    "SOLVER.BASE_LR -1": "0 or more",
    "SOLVER.WARMUP_EPOCHS -1": "0 or more",
    "MODEL.EMBEDDING.SCENE 0": "1 or more",
    "INPUT.FLIP_PROB 2": "between 0 and 1, not 2.0",
    "MODEL.OIM.MOMENTUM 2": "between 0 and 1",
    "MODEL.OIM.SCALAR -30": "0.001 or more",
    "MODEL.ANCHOR_FREE.MAX_CANDIDATES 0": "1 or more",
    "SOLVER.OFFSET_LR_FACTOR -1": "0 or more",
    "MODEL.RPN.POSITIVE_FRACTION 1.5": "between 0 and 1",
    "MODEL.SEARCH_HEAD.POSITIVE_FRACTION 1.5": "between 0 and 1",
    "MODEL.DETECTION_HEAD.BATCH_SIZE 0": "1 or more",
    "MODEL.LOSS_WEIGHTS.BOX_REID -1": "0 or more",
    "MODEL.BACKBONE.FROZEN_STAGES -1": "0 or more",
    "CKPT_PERIOD 0": "1 or more",
}


@pytest.mark.parametrize("option", OUT_OF_RANGE)
def test_values_out_of_range_are_named_with_their_range(option):
    name = option.split()[0]
    check_ranges(load_cfg(None), RANGES)
    with pytest.raises(UserError, match=f"{name} must be {OUT_OF_RANGE[option]}"):
        check_ranges(load_cfg(None, option.split()), RANGES)


def test_every_pattern_of_ranges_names_an_option():
    assert all(fnmatch.filter(flatten(load_cfg(None)), pattern) for pattern in RANGES)
