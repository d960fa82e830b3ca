"""The words of the demo, in print and in pictures."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun, as in "1 image" and "2 images"; `many`: the plural, where an s does not make it."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def headline(ranked: Sequence[dict], images: int) -> str:
    """How a search ended, given `GalleryResults.ranked` and the number of images searched."""
    matches = sum(row["match"] for row in ranked)
    if matches:
        return f"{counted(matches, 'match', 'matches')} in {counted(images, 'image')}"
    if ranked:
        return f"nobody is similar enough; the best has {ranked[0]['similarity']:.3f}"
    return f"nobody was found in {counted(images, 'image')}"


def verdict(match: bool, right: bool | None) -> str:
    """On a candidate: whether it is a match, and whether that is right (None: not known)."""
    if match:
        return {None: "", True: "right", False: "wrong"}[right]
    return "missed" if right else "no match"


def short_path(file: Path, files: Sequence[Path]) -> str:
    """The name of a file, with as many of its folders as tell it from `files`: phones give a name more than once."""
    parts = file.parts
    for number in range(1, len(parts)):
        if not any(other != file and other.parts[-number:] == parts[-number:] for other in files):
            return "/".join(parts[-number:])
    return str(file)


def drawable(text: str) -> str:
    """`text` without accents, which Pillow's own font draws as boxes."""
    letters = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))
