"""Options: where they come from, and what is said of wrong ones."""

import pytest

from defaults import get_default_cfg, load_cfg, read_cfg


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


def test_a_bare_off_in_a_file_stays_a_word(tmp_path):
    assert load_cfg(write(tmp_path, "a.yaml", "SOLVER: {AMP: off}")).SOLVER.AMP == "off"


@pytest.mark.parametrize(
    "words, error, message",
    [
        (["SOLVER.BASELR", "1"], KeyError, "nearest is 'SOLVER.BASE_LR'"),
        (["SOLVER", "1"], KeyError, "no option 'SOLVER'"),
        (["SEED", "x"], ValueError, "SEED must be of type int, but is 'x'"),
        (["SEED", "1.5"], ValueError, "SEED must be of type int"),
        (["solver.base_lr", "1"], KeyError, "no option 'solver.base_lr'; the nearest is 'SOLVER.BASE_LR'"),
        (["NUM_IDS", "1"], KeyError, "nearest is 'MODEL.OIM.NUM_IDS'"),
        (["SEED", "None"], ValueError, "command line: SEED must be of type int, but is 'None'"),
        (["SEED", "True"], ValueError, "SEED must be of type int"),
        (["SEED", "[" * 300], ValueError, "SEED must be of type int"),
        (["SEED", "-" * 100000 + "1"], ValueError, r"SEED must be of type int, but is '-+\.\.\.-+1'$"),
        (["DETERMINISTIC", "1"], ValueError, "DETERMINISTIC must be of type bool"),
        (["SOLVER.BASE_LR", "nan"], ValueError, r"SOLVER.BASE_LR must be of type float \(and finite\), but is 'nan'"),
        (["SOLVER.BASE_LR", "1e999"], ValueError, "SOLVER.BASE_LR must be of type float"),
        (["SOLVER.BASE_LR", "1" * 400], ValueError, "SOLVER.BASE_LR must be of type float"),
        (["SOLVER.MILESTONES", "['a', None]"], ValueError, "SOLVER.MILESTONES must be of type list of int"),
        (["SOLVER.MILESTONES", "3"], ValueError, "SOLVER.MILESTONES must be of type list of int"),
        (["SOLVER.MILESTONES", "__import__('os').getcwd()"], ValueError, "SOLVER.MILESTONES must be of type list"),
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


LAUGHS = ", ".join(["&x0 [a]"] + [f"&x{i + 1} [{', '.join([f'*x{i}'] * 10)}]" for i in range(12)])
"""Lists, the last of which has 10 ** 12 words if it is ever written out."""

WRONG = {
    "unknown key": ("SOLVER: {BASE_LRR: 1}", KeyError, "no option 'SOLVER.BASE_LRR'; the nearest is 'SOLVER.BASE_LR'"),
    "unknown section": ("SOLVR: {BASE_LR: 1}", KeyError, "no option 'SOLVR'; the nearest is '"),
    "key of another type": ("1: 2", KeyError, "no option '1'"),
    "section as option": ("SOLVER: 3", KeyError, "no option 'SOLVER'"),
    "option as section": ("SEED: {a: 1}", ValueError, "SEED must be of type int, but is {'a': 1}"),
    "wrong type": ("SOLVER: {AMP: 3}", ValueError, "SOLVER.AMP must be of type str, but is 3"),
    "no value": ("SEED:", ValueError, "SEED must be of type int, but is None"),
    "no text": ("INPUT: {DATA_ROOT: }", ValueError, "INPUT.DATA_ROOT must be of type str, but is None"),
    "date": ("SEED: {a: 2001-01-01}", ValueError, "SEED must be of type int"),
    "not finite": ("SOLVER: {BASE_LR: .nan}", ValueError, "SOLVER.BASE_LR must be of type float"),
    "wrong elements": ("SOLVER: {MILESTONES: [1, a]}", ValueError, "SOLVER.MILESTONES must be of type list of int"),
    "key twice": ("SEED: 1\nSEED: 2", ValueError, r"SEED comes twice \(line 2\)"),
    "key of a section twice": ("SOLVER:\n  GAMMA: 1\n  GAMMA: 2", ValueError, r"GAMMA comes twice \(line 3\)"),
    "key in two notations": ("SOLVER.GAMMA: 1\nSOLVER: {GAMMA: 2}", ValueError, "SOLVER.GAMMA comes twice"),
    "list as base": ("BASE: [a]", ValueError, r"BASE must be the path of a config file, but is \['a'\]"),
    "number as base": ("BASE: 3", ValueError, "BASE must be the path of a config file, but is 3"),
    "no base": ("BASE:", ValueError, "BASE must be the path of a config file, but is None"),
    "recursive section": ("SOLVER: &a {x: *a}", KeyError, "no option 'SOLVER.x'"),
    "recursive option": ("SEED: &a {x: *a}", ValueError, "SEED must be of type int"),
    "recursive list": ("SOLVER: {MILESTONES: &a [*a]}", ValueError, "SOLVER.MILESTONES must be of type list of int"),
    "nested deeply": ("[" * 20000, ValueError, "is not a YAML file of options: it is nested too deeply"),
    "laughs": (f"OUTPUT_DIR: [{LAUGHS}]", ValueError, "OUTPUT_DIR must be of type str"),
    "laughs as list": (f"SOLVER: {{MILESTONES: [{LAUGHS}]}}", ValueError, "MILESTONES must be of type list of int"),
    "tab": ("SOLVER:\n\tGAMMA: 1", ValueError, r"is not a YAML file of options: .* \(line 2\)"),
    "two documents": ("--- 1\n--- 2", ValueError, "is not a YAML file of options: .*another document"),
    "unknown alias": ("SEED: *x", ValueError, "is not a YAML file of options: found undefined alias"),
    "list as key": ("? [a]\n: b", ValueError, "is not a YAML file of options: found unhashable key"),
    "zero byte": ("SEED: \0", ValueError, "is not a YAML file of options: unacceptable character"),
    "value unlike its tag": ("SEED: !!timestamp x", ValueError, "is not a YAML file of options: one of its values"),
}


@pytest.mark.parametrize("text, error, message", WRONG.values(), ids=WRONG)
def test_what_is_wrong_in_a_file_is_one_sentence_that_names_it(text, error, message, tmp_path):
    with pytest.raises(error, match=message) as caught:
        load_cfg(write(tmp_path, "a.yaml", text))
    sentence = caught.value.args[0]
    assert sentence.startswith(str(tmp_path / "a.yaml")) and "\n" not in sentence and len(sentence) < 500


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"OUTPUT_DIR: caf\xe9\n")
    with pytest.raises(ValueError, match=r"a.yaml is not a YAML file: byte 15 is not UTF-8 text; save it as UTF-8"):
        load_cfg(tmp_path / "a.yaml")


def test_keys_that_yaml_merges_are_not_taken_for_doubles(tmp_path):
    leaf = write(tmp_path, "a.yaml", "SOLVER: &a {GAMMA: 0.3}\nMODEL: {OIM: {<<: {NUM_IDS: 3}, NUM_IDS: 4}}\n")
    assert load_cfg(leaf).SOLVER.GAMMA == 0.3
    assert load_cfg(leaf).MODEL.OIM.NUM_IDS == 4


def test_a_config_inside_another_file_opens_no_file(tmp_path):
    base = write(tmp_path, "base.yaml", "SEED: 7")
    assert read_cfg("SOLVER: {GAMMA: 0.3}", "the config in a.pth", ["SEED", "9"]).SOLVER.GAMMA == 0.3
    with pytest.raises(ValueError, match=r"^the config in a.pth names a file to build on \(BASE\)"):
        read_cfg(f"BASE: {base}", "the config in a.pth")
    with pytest.raises(KeyError, match="the config in a.pth: there is no option 'SEEDS'; the nearest is 'SEED'"):
        read_cfg("SEEDS: 1", "the config in a.pth")


def test_a_dumped_config_loads_to_the_same_options(tmp_path):
    cfg = load_cfg(None, ["SOLVER.AMP", "bf16", "INPUT.DATA_ROOT", "123", "SOLVER.MILESTONES", "[]"])
    assert load_cfg(write(tmp_path, "config.yaml", cfg.dump())) == cfg
