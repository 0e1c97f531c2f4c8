"""Planning: sources become jobs, and completed ones are skipped."""
