"""The two editing methods: BaFT edits at once, LocFT-BF consolidates. Knows no database and no HTTP."""
