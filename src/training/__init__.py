"""The loop and what it stands on: evaluation, averages, checkpoints, schedules, meters, clocks."""
