"""The data itself as a manifest: a folder, a bucket, or a saved listing of either."""
