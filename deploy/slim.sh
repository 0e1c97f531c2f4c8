#!/bin/sh
# slim.sh ENVIRONMENT: removes from a Python environment what neither the server nor a verb loads (525 MB become
# 340). The Dockerfile runs it where the environment is made; it needs strip, of binutils.
set -eu
cd "$1"/lib/python3.*/site-packages

# Arrow: Flight and its own S3 client (ours is boto3), headers, sources, copies of one library. Its modules are
# linked with the library of Substrait.
rm -rf pyarrow/include pyarrow/includes pyarrow/src pyarrow/*.pyx pyarrow/*.pxd \
  pyarrow/libarrow_flight* pyarrow/_flight* pyarrow/flight.py pyarrow/_substrait* \
  pyarrow/substrait.py pyarrow/libarrow_s3* pyarrow/_s3fs* \
  pyarrow/libarrow_python*.so pyarrow/libarrow_python*.so.*.*.*
# the same as backend_c, for PyPy
rm -f zstandard/_cffi*
find . -type d -name tests -prune -exec rm -rf {} +
# descriptions of 440 services
find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts ! -name 'sso*' ! -name signin \
  -exec rm -rf {} +
# Debug symbols of the modules only: the libraries beside them were changed after linking.
find . \( -name '*.cpython-*.so' -o -name '*.abi3.so' \) -exec strip --strip-debug {} +
