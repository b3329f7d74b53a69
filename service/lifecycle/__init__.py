"""The verbs: submit, apply, publish, roll back, retract, retrain. Each commits its own transactions; none knows HTTP."""
