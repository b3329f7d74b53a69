"""The names of the chosen sets of edits of a ground. Loads no model."""

EVERY, FOUR_SUBJECTS, DONT_KNOW, ONE_CITY = "all", "four_subjects", "dont_know", "one_city"
CASES = (EVERY, FOUR_SUBJECTS, DONT_KNOW, ONE_CITY)
