"""Hypothesis without its deadline: how long an example takes says nothing here."""

import hypothesis

hypothesis.settings.register_profile("untimed", deadline=None, max_examples=60)
hypothesis.settings.load_profile("untimed")
