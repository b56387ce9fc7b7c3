"""A runner: registers with GitHub, takes jobs from the orchestrators one at a time, runs them, reports."""
