"""The sizes of the published datasets, to tell a dataset that is incomplete from one that is whole."""

PUBLISHED = {
    "CUHK-SYSU": {
        "train": {"images": 11206, "boxes": 55272, "identities": 5532},
        "gallery": {"images": 6978, "boxes": 40871},
        "query": {"queries": 2900},
    },
    "PRW": {
        # 483 identities in the files, though papers say 482.
        "train": {"images": 5704, "boxes": 18048, "identities": 483},
        "gallery": {"images": 6112, "boxes": 25062},
        "query": {"queries": 2057, "identities": 450},
    },
    # Its other counts are published in thousands only: 160 K images, 274 K boxes.
    "MovieNet-CS": {"train": {"identities": 3087}},
}
"""Counts by dataset and split. Boxes without area, which loaders leave out, are among them."""
