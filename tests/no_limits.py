"""Acceptance that refuses nothing for what an edit changes elsewhere: random models keep little."""

SHARES = ("near_loss", "same_subject_loss", "far_fall", "far_loss", "retrain_fall")
NO_LIMITS = {**dict.fromkeys(SHARES, 1.0), "prose_divergence": 1e9}
