"""The two ways to make a model say something else: BaFT at once, LocFT-BF for good. Knows no database and no HTTP."""
