"""LocFT-BF: localized fine-tuning, breadth-first. One module's weights are trained over all edits, in training epochs."""
