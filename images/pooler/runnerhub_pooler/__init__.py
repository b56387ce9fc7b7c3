"""Stops the clients of a pooler pod for the moment in which the Postgres primary changes, and lets them go on."""
