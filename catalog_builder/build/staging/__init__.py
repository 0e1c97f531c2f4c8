"""What is gathered on disk before it becomes rows: converted tile-years, blocks of stores."""
