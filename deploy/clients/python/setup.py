"""Generates sirocco.v1, the API's messages and stubs, while the package is built."""
import os
import shutil

import grpc_tools
from grpc_tools import protoc
from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = os.path.dirname(os.path.abspath(__file__))
FILE = "sirocco/v1/inference.proto"
# Of an unpacked source archive, else of the repository.
PROTO = next((folder for folder in (os.path.join(HERE, "proto"), os.path.join(HERE, "../../../proto"))
              if os.path.exists(os.path.join(folder, FILE))), None)


class BuildWithStubs(build_py):
    def run(self):
        super().run()
        if PROTO is None:
            raise SystemExit(f"{FILE} is neither in proto/ nor in the repository's proto/")
        os.makedirs(self.build_lib, exist_ok=True)
        status = protoc.main([
            "protoc", f"--proto_path={PROTO}",
            f"--proto_path={os.path.dirname(grpc_tools.__file__)}/_proto",
            f"--python_out={self.build_lib}", f"--pyi_out={self.build_lib}",
            f"--grpc_python_out={self.build_lib}", FILE])
        if status != 0:
            raise SystemExit(f"protoc failed with {status}")


class SourcesWithProto(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        target = os.path.join(base_dir, "proto", FILE)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(os.path.join(PROTO, FILE), target)


setup(cmdclass={"build_py": BuildWithStubs, "sdist": SourcesWithProto})
