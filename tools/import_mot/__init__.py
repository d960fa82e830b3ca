"""Turn frames with tracks into a dataset; see datasets/README.md."""
