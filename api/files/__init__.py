"""Files with range support, from a folder or a bucket; direct access to the published arrays; views."""
