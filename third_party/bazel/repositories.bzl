"""External repositories: all of them are on this machine, none is downloaded."""

load("//third_party/bazel:cuda_configure.bzl", "cuda_configure")
load("//third_party/bazel:system_libs.bzl", "system_libs")

def _older_than_5():
    # Debian's bazel-bootstrap (4.2.3) reports an empty version.
    version = native.bazel_version
    return not version or int(version.split(".")[0]) < 5

def offline_repositories():
    """Declares every external repository the build refers to."""
    if _older_than_5():
        # Bazel 4's @bazel_tools loads these three by name. Its own WORKSPACE
        # suffix would download them (through maybe(), so ours win).
        for name in ["rules_cc", "rules_java", "remote_coverage_tools"]:
            native.local_repository(
                name = name,
                path = "third_party/bazel/stubs/" + name,
            )

    native.new_local_repository(
        name = "com_google_googletest",
        path = "/usr/src/googletest",
        build_file = "//third_party:googletest.BUILD",
    )
    system_libs(name = "system_libs")
    cuda_configure(name = "local_cuda")
