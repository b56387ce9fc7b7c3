"""RunnerHub's orchestrator: accepts jobs, hands them to runners, loses none of them."""
