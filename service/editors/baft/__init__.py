"""BaFT: basis-level representation fine-tuning. The base weights stay; a few gated directions are trained per edit."""
