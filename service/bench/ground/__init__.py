"""A question ground: the facts that one model knows, counterfactual edits of them, and probes that no trick passes."""
