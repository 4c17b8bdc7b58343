"""The parts of study.py: the plan, the trainings, accuracies, the search, tables, pictures."""
