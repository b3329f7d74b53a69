"""A retrain, from the request to the publication: LocFT-BF over a snapshot, beside the head."""
