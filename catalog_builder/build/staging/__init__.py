"""What is gathered on disk before it becomes rows: manifests, conversions, blocks of stores."""
