"""The scheduler of this process's batch job: when the job ends, whether one is gone, and how it starts again."""
