"""The almanac: facts about people, for training a second small model. The facts are read from public data that is not shipped."""
