"""What stays warm between trials? Data, teacher outputs and settings of a process that trains."""
