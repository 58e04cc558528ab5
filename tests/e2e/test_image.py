"""The container image: built by buildah, unpacked, and run from a read-only root by nobody in
particular."""
import json
import os
import shlex
import shutil
import subprocess
import tarfile

import pytest

from harness import BINARY, ROOT, Server

MOST_BYTES = 60_000_000
USER = 10001

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and other users need root")


TREE = os.path.dirname(os.path.dirname(BINARY))


def make(*args, **env):
    """deploy/tools/image."""
    return subprocess.run([os.path.join(ROOT, "deploy/tools/image"), *args], capture_output=True,
                          text=True, timeout=300, env={**os.environ, **env})


class Image:
    """What deploy/tools/image makes of an installed tree, unpacked."""

    def __init__(self, folder, *flags, tree=TREE, **env):
        archive, layout = folder / "image.tar", folder / "layout"
        result = make(*flags, tree, archive, **env)
        assert result.returncode == 0, result.stderr
        with tarfile.open(archive) as tar:
            tar.extractall(layout)
        self.blobs = layout / "blobs/sha256"
        [manifest] = json.loads((layout / "index.json").read_text())["manifests"]
        manifest = self.json(manifest)
        self.config = self.json(manifest["config"])["config"]
        [layer] = manifest["layers"]
        self.bytes = layer["size"]
        self.root = folder / "root"
        self.root.mkdir(mode=0o755)
        with tarfile.open(self.blob(layer)) as tar:
            self.members = tar.getmembers()
            tar.extractall(self.root, numeric_owner=True)

    def blob(self, descriptor):
        return self.blobs / descriptor["digest"].removeprefix("sha256:")

    def json(self, descriptor):
        return json.loads(self.blob(descriptor).read_text())

    def command(self, model):
        """What runs the image's entry point as a container runtime does: its own root, read-only,
        with /proc; its own user, its own environment; the model mounted."""
        root = shlex.quote(str(self.root))
        (self.root / "proc").mkdir(exist_ok=True)
        script = f"""
            set -e
            mount --bind {root} {root}
            mount --rbind /proc {root}/proc
            mount --bind {shlex.quote(os.path.dirname(model))} {root}/models
            mount -o remount,bind,ro {root}/models
            mount -o remount,bind,ro {root}
            exec chroot --userspec={self.config["User"]} {root} "$@"
        """
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh",
                *self.config["Entrypoint"]]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return Image(tmp_path_factory.mktemp("image"))


def test_its_size(image):
    unpacked = sum(member.size for member in image.members)
    assert 5_000_000 < image.bytes < unpacked < MOST_BYTES
    print(f"image: {image.bytes} bytes compressed, {unpacked} unpacked")


def test_what_it_says_of_itself(image):
    config = image.config
    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == ["/sirocco/bin/sirocco"]
    assert set(config["ExposedPorts"]) == {"50051/tcp", "9464/tcp"}
    assert config["StopSignal"] == "SIGTERM"
    env = dict(entry.split("=", 1) for entry in config["Env"])
    assert (env["EOLE_TORCH_COMPILE"], env["EOLE_COMPILE_MODE"]) == ("1", "0")
    assert env["SIROCCO_LISTEN"] == "0.0.0.0:50051"
    assert env["SIROCCO_METRICS_LISTEN"] == "0.0.0.0:9464"


def test_nothing_else_is_in_it(image):
    programs = [m.name for m in image.members if m.isfile() and m.mode & 0o111
                and ".so" not in m.name]
    assert [os.path.normpath(name) for name in programs] == ["sirocco/bin/sirocco"]
    assert not any(m.mode & 0o6000 for m in image.members), "runs with another user's rights"
    # Of whatever is not ours the licence is there.
    licences = {m.name.split("/")[-2] for m in image.members if m.name.endswith("/copyright")}
    assert licences == {"libc6", "libgcc-s1", "libstdc++6"}


def test_it_serves(image, smollm2):
    inside = f"/models/{os.path.basename(smollm2)}"
    env = dict(entry.split("=", 1) for entry in image.config["Env"])
    with Server(inside, "--max-batch-size", 2, "--max-length", 512, mode=None, env=env,
                command=image.command(smollm2)) as server:
        with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
        assert set(fields["Uid"].split()) == set(fields["Gid"].split()) == {str(USER)}
        assert int(fields["CapEff"], 16) == 0
        with open(f"/proc/{server.process.pid}/mountinfo", encoding="utf-8") as mounts:
            root = next(fields for fields in map(str.split, mounts) if fields[4] == "/")
        assert "ro" in root[5].split(",")
        chat = {"messages": [{"role": "user", "content": "What is the capital of Japan?"}]}
        assert "Tokyo" in server.generate(chat=chat, max_new_tokens=40).completions[0].text
        assert server.get_model().mode == "decoder_graph"
        assert server.check_health() == "SERVING"
        assert server.http_status("/readyz") == 200
    assert server.process.returncode == 0


class TestForGpus:
    """With a plugin and a cuBLASLt of a few bytes (of a version that no machine has), not of 500 MB."""

    @pytest.fixture
    def tree(self, tmp_path):
        """The installed tree with a plugin that needs a cuBLASLt, which lies in toolkit/lib64."""
        libraries = tmp_path / "toolkit/lib64"
        libraries.mkdir(parents=True)
        shutil.copytree(TREE, tmp_path / "tree")
        cublas, plugin = libraries / "libcublasLt.so.99", tmp_path / "tree/lib/libsirocco_cuda.so"
        plugin.unlink(missing_ok=True)
        for out, source, flags in ((cublas, "int Multiply() { return 0; }", []),
                                   (plugin, "int Multiply(); int Plugin() { return Multiply(); }",
                                    [f"-L{libraries}", "-l:libcublasLt.so.99"])):
            subprocess.run(["g++", "-shared", "-fPIC", "-x", "c++", "-", "-o", out,
                            f"-Wl,-soname,{out.name}", *flags],
                           input=source, text=True, check=True, timeout=60)
        return tmp_path / "tree"

    def test_what_is_in_it(self, tree, tmp_path):
        licence = tmp_path / "toolkit/dist-info/nvidia_cublas-99.0.dist-info/licenses/License.txt"
        licence.parent.mkdir(parents=True)
        licence.write_text("what NVIDIA says")
        image = Image(tmp_path, "--cuda", tree=tree, LD_LIBRARY_PATH=str(tmp_path / "toolkit/lib64"))
        env = dict(entry.split("=", 1) for entry in image.config["Env"])
        assert env["NVIDIA_VISIBLE_DEVICES"] == "all"
        assert (image.root / "sirocco/lib/libsirocco_cuda.so").exists()
        # Where the loader of the image looks.
        assert (image.root / "lib/x86_64-linux-gnu/libcublasLt.so.99").exists()
        assert (image.root / "usr/share/doc/cublas/copyright").read_text() == "what NVIDIA says"
        told = subprocess.run([*image.command(str(tmp_path / "none")), "info", "--model", "/models/none"],
                              capture_output=True, text=True, timeout=60, env=env)
        assert (told.returncode, "/models/none" in told.stderr) == (2, True), told.stderr

    def test_what_is_refused(self, tree, tmp_path):
        toolkit = str(tmp_path / "toolkit/lib64")
        for found, why in (({}, "not found here: libcublasLt.so.99"),
                           ({"LD_LIBRARY_PATH": toolkit}, "no licence lies beside it")):
            refused = make("--cuda", tree, tmp_path / "image.tar", **found)
            assert refused.returncode == 1 and why in refused.stderr, refused.stderr
            assert len(refused.stderr.splitlines()) == 1
        (tree / "lib/libsirocco_cuda.so").unlink()
        refused = make("--cuda", tree, tmp_path / "image.tar")
        assert refused.returncode == 1 and "has no CUDA plugin" in refused.stderr, refused.stderr
        assert not (tmp_path / "image.tar").exists()
