"""The API as Python modules, generated from proto/ when this is imported."""
import atexit
import os
import shutil
import sys
import tempfile

import grpc_tools
from grpc_tools import protoc

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))


def _generate():
    folder = tempfile.mkdtemp(prefix="sirocco-stubs-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    status = protoc.main([
        "protoc",
        f"--proto_path={ROOT}/proto",
        f"--proto_path={os.path.dirname(grpc_tools.__file__)}/_proto",
        f"--python_out={folder}",
        f"--grpc_python_out={folder}",
        "sirocco/v1/inference.proto",
    ])
    assert status == 0, "protoc failed"
    sys.path.insert(0, folder)
    return folder


FOLDER = _generate()  # for the path of a program that imports sirocco.v1

from sirocco.v1 import inference_pb2 as pb  # noqa: E402
from sirocco.v1 import inference_pb2_grpc as rpc  # noqa: E402

__all__ = ["FOLDER", "ROOT", "pb", "rpc"]
