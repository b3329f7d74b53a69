"""Rows of the BaFT paper's tables (arXiv 2503.00306), on its models and on ZsRE, to stand beside ours. No figure here is ours."""

from collections.abc import Mapping

Scores = tuple[float, float, float]  # reliability, generality, locality, by teacher-forced tokens
LLAMA_2, LLAMA_3 = "LLaMA 2-7b", "LLaMA 3-8b-Instruct"

# By edits of one fit: the number of the table; then by model and method the scores after T fits.
TABLES: Mapping[int, int] = {1: 2, 10: 6, 50: 7}
ROWS: Mapping[int, Mapping[tuple[str, str], Mapping[int, Scores]]] = {
    1: {
        (LLAMA_2, "ReFT"): {1: (1.00, 0.95, 0.94), 10: (0.90, 0.85, 0.88), 100: (0.78, 0.74, 0.83), 1000: (0.58, 0.56, 0.73)},
        (LLAMA_2, "BaFT"): {1: (1.00, 0.94, 0.97), 10: (0.89, 0.84, 0.97), 100: (0.75, 0.70, 0.98), 1000: (0.63, 0.60, 0.98)},
        (LLAMA_3, "ReFT"): {1: (1.00, 0.97, 0.93), 10: (0.90, 0.84, 0.87), 100: (0.68, 0.61, 0.74), 1000: (0.48, 0.45, 0.64)},
        (LLAMA_3, "BaFT"): {1: (1.00, 0.95, 0.96), 10: (0.89, 0.82, 0.95), 100: (0.70, 0.64, 0.93), 1000: (0.50, 0.49, 0.93)},
    },
    10: {
        (LLAMA_2, "ReFT"): {1: (0.94, 0.86, 0.86), 10: (0.92, 0.83, 0.86), 100: (0.64, 0.60, 0.76)},
        (LLAMA_2, "BaFT"): {1: (0.93, 0.84, 0.95), 10: (0.92, 0.83, 0.95), 100: (0.59, 0.55, 0.98)},
        (LLAMA_3, "ReFT"): {1: (0.92, 0.82, 0.65), 10: (0.89, 0.78, 0.64), 100: (0.46, 0.43, 0.44)},
        (LLAMA_3, "BaFT"): {1: (0.92, 0.82, 0.83), 10: (0.90, 0.78, 0.85), 100: (0.43, 0.40, 0.95)},
    },
    50: {
        (LLAMA_2, "ReFT"): {1: (0.90, 0.77, 0.85), 10: (0.80, 0.69, 0.82), 20: (0.60, 0.56, 0.74)},
        (LLAMA_2, "BaFT"): {1: (0.92, 0.78, 0.89), 10: (0.80, 0.69, 0.90), 20: (0.62, 0.57, 0.92)},
        (LLAMA_3, "ReFT"): {1: (0.92, 0.74, 0.52), 10: (0.75, 0.61, 0.49), 20: (0.48, 0.42, 0.43)},
        (LLAMA_3, "BaFT"): {1: (0.92, 0.75, 0.62), 10: (0.75, 0.61, 0.72), 20: (0.49, 0.43, 0.78)},
    },
}
# Table 4, LLaMA 2-7b after 100 edits one after another, by our contender of the same kind: the paper's name and its scores.
ABLATIONS: Mapping[str, tuple[str, Scores]] = {
    "reft": ("ReFT", (0.76, 0.71, 0.84)),
    "paper_subspace_no_margin": ("+ss-w", (0.74, 0.68, 0.81)),
    "paper_no_margin": ("+ba-w", (0.77, 0.71, 0.86)),
    "paper_subspace": ("+ss-w & lr", (0.67, 0.61, 0.99)),
    "paper": ("BaFT", (0.73, 0.67, 0.98)),
}
ABLATIONS_AFTER = 100
