"""A repository of the C++ libraries that Debian packages install.

Each is looked for when the repository is set up, so that a missing package is
one clear message. Headers need no declaring: /usr/include is a built-in
include directory of the C++ toolchain.
"""

_LIBDIR = "/usr/lib/x86_64-linux-gnu"

# name -> (Debian packages, a header, static archives, shared libraries,
#          linkopts for both, names of other entries)
_LIBS = {
    "absl": struct(
        package = "libabsl-dev",
        header = "absl/base/config.h",
        static_glob = "libabsl_",
        linkopts = ["-pthread", "-lrt"],
        deps = [],
    ),
    "protobuf": struct(
        package = "libprotobuf-dev",
        header = "google/protobuf/message.h",
        static = ["protobuf"],
        linkopts = ["-pthread"],
        deps = ["zlib"],
    ),
    "zlib": struct(package = "zlib1g-dev", header = "zlib.h", static = ["z"]),
    "re2": struct(package = "libre2-dev", header = "re2/re2.h", static = ["re2"], linkopts = ["-pthread"]),
    "cares": struct(package = "libc-ares-dev", header = "ares.h", static = ["cares"]),
    "openssl": struct(
        package = "libssl-dev",
        header = "openssl/ssl.h",
        static = ["ssl", "crypto"],
        linkopts = ["-ldl", "-pthread"],
    ),
    "grpcpp": struct(
        package = "libgrpc++-dev",
        header = "grpcpp/grpcpp.h",
        static = ["grpc++", "grpc", "address_sorting", "upb", "gpr"],
        deps = ["protobuf", "absl", "re2", "cares", "openssl", "zlib"],
    ),
    "grpcpp_reflection": struct(
        package = "libgrpc++-dev",
        header = "grpcpp/ext/proto_server_reflection_plugin.h",
        static = ["grpc++_reflection"],
        deps = ["grpcpp"],
    ),
    "yaml_cpp": struct(package = "libyaml-cpp-dev", header = "yaml-cpp/yaml.h", static = ["yaml-cpp"]),
    "pcre2": struct(package = "libpcre2-dev", header = "pcre2.h", static = ["pcre2-8"]),
    "utf8proc": struct(package = "libutf8proc-dev", header = "utf8proc.h", static = ["utf8proc"]),
    "json": struct(package = "nlohmann-json3-dev", header = "nlohmann/json.hpp", static = []),
    # Debian ships no archives of these: shared only, and the bundle carries them.
    "prometheus_cpp": struct(
        package = "prometheus-cpp-dev",
        header = "prometheus/registry.h",
        shared = ["prometheus-cpp-core"],
    ),
    "cli11": struct(package = "libcli11-dev", header = "CLI/CLI.hpp", static = []),
    "highway": struct(package = "libhwy-dev", header = "hwy/highway.h", shared = ["hwy"]),
    "benchmark": struct(
        package = "libbenchmark-dev",
        header = "benchmark/benchmark.h",
        shared = ["benchmark"],
        linkopts = ["-pthread"],
    ),
}

_BUNDLED = [
    "libprometheus-cpp-core.so.1.0",
    "libhwy.so.1",
    "libz.so.1",
]

_TARGET = '''
cc_library(
    name = "{name}",
    linkopts = select({{
        "@sirocco//third_party/bazel:shared_deps_enabled": {shared},
        "//conditions:default": {static},
    }}) + {linkopts},
    deps = {deps},
)
'''

def _impl(ctx):
    out = [
        'load("@rules_cc//cc:defs.bzl", "cc_library")',
        'package(default_visibility = ["//visibility:public"])',
    ]
    missing = []
    for name, lib in _LIBS.items():
        if not ctx.path("/usr/include/" + lib.header).exists:
            missing.append(lib.package)
            continue
        stems = getattr(lib, "static", [])
        if hasattr(lib, "static_glob"):
            stems = sorted([
                f.basename[3:-2]
                for f in ctx.path(_LIBDIR).readdir()
                if f.basename.startswith(lib.static_glob) and f.basename.endswith(".a") and
                   "test_util" not in f.basename
            ])
        for stem in stems:
            if not ctx.path("%s/lib%s.a" % (_LIBDIR, stem)).exists:
                missing.append(lib.package + " (lib%s.a)" % stem)
        shared_only = getattr(lib, "shared", [])
        shared = ["-l" + s for s in stems + shared_only]
        static = ["-l:lib%s.a" % s for s in stems] + ["-l" + s for s in shared_only]
        if len(stems) > 1:
            static = ["-Wl,--start-group"] + static + ["-Wl,--end-group"]
            shared = ["-Wl,--as-needed"] + shared
        out.append(_TARGET.format(
            name = name,
            static = repr(static),
            shared = repr(shared),
            linkopts = repr(getattr(lib, "linkopts", [])),
            deps = repr([":" + d for d in getattr(lib, "deps", [])]),
        ))
    tools = {}
    for tool, package in {
        "protoc": "protobuf-compiler",
        "grpc_cpp_plugin": "protobuf-compiler-grpc",
    }.items():
        path = ctx.which(tool)
        if path == None:
            missing.append(package)
        else:
            ctx.symlink(path, "bin/" + tool)
    # Definitions of gRPC's own services, to generate clients for tests.
    health = ctx.path("/usr/share/grpc-proto/grpc/health/v1/health.proto")
    if health.exists:
        ctx.symlink(health, "grpc-proto/health.proto")
    else:
        missing.append("grpc-proto")

    # A plugin cannot hold Debian's archives of Abseil, which are not position-independent: it links
    # the shared libraries, those of them that it needs.
    absl = sorted([
        f.basename
        for f in ctx.path(_LIBDIR).readdir()
        if f.basename.startswith("libabsl_") and f.basename.split(".so.")[-1].isdigit()
    ])
    ctx.file("shared_absl.bzl", "SHARED_ABSL = " + repr(
        ["-Wl,--as-needed"] + ["-l:" + name for name in absl] + ["-Wl,--no-as-needed"],
    ) + "\n")

    # The shared libraries that a bundle for another machine must carry.
    for name in _BUNDLED + absl:
        path = ctx.path("%s/%s" % (_LIBDIR, name))
        if path.exists:
            ctx.symlink(path, "bundled/" + name)
    if missing:
        fail("missing system packages: apt-get install " + " ".join(missing))
    out.append('exports_files(glob(["bin/*", "grpc-proto/*"]))')
    out.append('filegroup(name = "bundled_libs", srcs = glob(["bundled/*"]))')
    ctx.file("BUILD.bazel", "\n".join(out) + "\n")

_system_libs = repository_rule(
    implementation = _impl,
    local = True,
    configure = True,
    environ = ["PATH"],
)

def system_libs(name):
    _system_libs(name = name)
