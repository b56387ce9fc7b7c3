"""`kubectl runnerhub`: what a person in charge of a RunnerHubCluster looks at and does, as a plugin of kubectl."""
