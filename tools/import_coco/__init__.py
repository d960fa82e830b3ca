"""Turn COCO-style annotations with person ids into a dataset; see datasets/README.md."""
