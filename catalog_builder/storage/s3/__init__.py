"""S3 by boto3: one client a process, objects read and listed, conditional checked puts, presigned URLs."""

from catalog_builder.storage.s3 import objects, put

__all__ = ["objects", "put"]
