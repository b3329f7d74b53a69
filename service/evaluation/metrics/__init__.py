"""The metrics of the field, one file a family, and the batches in which rows pass through the model."""
