"""LoRA: the breadth-first training of LocFT-BF on a pair of low rank, instead of the whole weights of the tuned module."""
