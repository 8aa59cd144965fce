"""Local web servers: the report of a running sweep, and Optuna's dashboard."""
