"""S3 with boto3: one client per process, reading and listing, conditional verified puts, presigned URLs."""

from catalog_builder.storage.s3 import objects, put

__all__ = ["objects", "put"]
