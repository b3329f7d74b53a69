"""The verbs: submit, apply, publish, roll back, retract, retrain. Each opens and commits its own transactions; none knows HTTP."""
