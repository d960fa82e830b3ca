"""What people look like: body, skin, hair and clothing, drawn at random so that two people rarely look alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from datasets.synthetic.canvas import Cloth, Colour

_SKIN = ((241, 205, 177), (229, 184, 148), (208, 156, 118), (172, 120, 84), (128, 84, 56), (88, 58, 42))
_HAIR = ((28, 24, 22), (52, 38, 28), (88, 60, 38), (134, 92, 50), (196, 160, 96), (150, 70, 38), (150, 150, 150))
_CLOTH = ((32, 32, 36), (84, 86, 92), (158, 160, 164), (236, 234, 228), (36, 48, 92), (48, 104, 188), (120, 176, 222),
          (184, 34, 40), (112, 26, 44), (228, 112, 34), (240, 200, 52), (50, 132, 68), (96, 104, 52), (22, 134, 140),
          (112, 66, 150), (230, 132, 166), (204, 180, 140), (116, 80, 54))  # fmt: skip
_LOWER = ((34, 34, 40), (40, 52, 86), (66, 92, 140), (112, 138, 178), (176, 160, 128), (92, 92, 96), (96, 98, 62))
_SHOES = ((28, 28, 30), (236, 234, 230), (110, 72, 46), (178, 44, 44), (66, 78, 120))
_JITTER = 9.0  # standard deviation of a colour around its palette entry


@dataclass(frozen=True)
class Look:
    """A person's appearance. Sizes are factors about 1; colours RGB; kinds are the names that figure.py draws."""

    stature: float
    build: float
    skin: Colour
    hair: Colour
    hair_kind: str
    hat: str
    hat_colour: Colour
    upper: Cloth
    upper_kind: str
    sleeves: Cloth
    inner: Colour
    lower: Cloth
    lower_kind: str
    shoes: Colour
    bag: str
    bag_colour: Colour
    logo: bool
    scarf: bool


def _shade(rng: Generator, palette: Sequence[Colour], jitter: float = _JITTER) -> tuple[float, ...]:
    """A palette colour, a little changed."""
    colour = np.float64(palette[rng.integers(len(palette))]) + rng.normal(0, jitter, 3)
    return tuple(np.clip(colour, 12, 246).round(1).tolist())


def _choose(rng: Generator, **weights: float) -> str:
    kinds, shares = list(weights), np.array(list(weights.values()), float)
    return kinds[rng.choice(len(kinds), p=shares / shares.sum())]


def _contrast(rng: Generator, colour: Colour) -> tuple[float, ...]:
    """A palette colour clearly apart from the given one."""
    return _shade(rng, [entry for entry in _CLOTH if np.abs(np.subtract(entry, colour)).sum() > 160])


def _upper(rng: Generator, kind: str) -> Cloth:
    colour = _shade(rng, _CLOTH)
    if kind in ("coat", "jacket"):
        pattern = _choose(rng, plain=8, checks=1)
    else:
        pattern = _choose(rng, plain=5, hoops=2, pinstripes=1, checks=1.5, dots=1, diagonal=0.5)
    return Cloth(colour, _contrast(rng, colour), pattern, float(rng.uniform(0.045, 0.085)))


def _lower(rng: Generator, kind: str, upper: Cloth) -> Cloth:
    if kind == "dress":
        return upper
    skirt = kind in ("skirt", "long_skirt")
    colour = _shade(rng, _CLOTH if skirt or rng.random() < 0.3 else _LOWER)
    pattern = _choose(rng, plain=3, dots=1, checks=1, hoops=0.6) if skirt else _choose(rng, plain=14, checks=1)
    return Cloth(colour, _contrast(rng, colour), pattern, float(rng.uniform(0.05, 0.08)))


def draw_look(rng: Generator) -> Look:
    """A random `Look`."""
    upper_kind = _choose(rng, tee=3, jumper=3, hoodie=1.5, jacket=3, coat=2)
    upper = _upper(rng, upper_kind)
    lower_kind = _choose(rng, trousers=6, shorts=1.6, skirt=1.2, long_skirt=0.7, dress=1 if upper_kind == "tee" else 0)
    contrast_sleeves = upper_kind in ("tee", "jumper") and rng.random() < 0.18
    hair_kind = _choose(rng, short=5, long=3, bun=1, ponytail=1.2, bald=0.7)
    return Look(
        stature=float(np.clip(rng.normal(1.0, 0.055), 0.86, 1.12)),
        build=float(np.clip(rng.normal(1.0, 0.12), 0.8, 1.35)),
        skin=_shade(rng, _SKIN, 3.0),
        hair=_shade(rng, _HAIR, 4.0),
        hair_kind=hair_kind,
        hat=_choose(rng, none=7, cap=1.2, beanie=1, brim=0.8),
        hat_colour=_shade(rng, _CLOTH),
        upper=upper,
        upper_kind=upper_kind,
        sleeves=Cloth(upper.second) if contrast_sleeves else upper,
        inner=_contrast(rng, upper.colour),
        lower=_lower(rng, lower_kind, upper),
        lower_kind=lower_kind,
        shoes=_shade(rng, _SHOES),
        bag=_choose(rng, none=4, backpack=2, shoulder=2, handbag=1.4, suitcase=0.6),
        bag_colour=_shade(rng, _CLOTH),
        logo=bool(upper.pattern == "plain" and upper_kind in ("tee", "jumper", "hoodie") and rng.random() < 0.5),
        scarf=bool(rng.random() < 0.12),
    )
