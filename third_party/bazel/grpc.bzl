"""cc_grpc_library: C++ messages and gRPC stubs from .proto files."""

load("@rules_cc//cc:defs.bzl", "cc_library")

# sources: the .proto files; roots: the folders that their import paths start from.
ProtoSourcesInfo = provider(fields = ["sources", "roots"])

def _generate_impl(ctx):
    protoc = ctx.file._protoc
    plugin = ctx.file._plugin
    transitive = depset(ctx.files.srcs, transitive = [d[ProtoSourcesInfo].sources for d in ctx.attr.deps])
    headers = []
    sources = []

    # Import paths start at the package: proto/sirocco/v1/x.proto is "sirocco/v1/x.proto".
    package = ctx.label.package
    out_root = ctx.bin_dir.path + "/" + package
    roots = depset([out_root, package], transitive = [d[ProtoSourcesInfo].roots for d in ctx.attr.deps])
    for src in ctx.files.srcs:
        relative = src.short_path[len(package) + 1:]
        stem = relative[:-len(".proto")]
        kinds = [".pb"] + ([".grpc.pb"] if ctx.attr.services else [])
        hs = [ctx.actions.declare_file(stem + k + ".h") for k in kinds]
        cs = [ctx.actions.declare_file(stem + k + ".cc") for k in kinds]
        args = ctx.actions.args()
        args.add_all(roots, format_each = "--proto_path=%s")
        args.add("--cpp_out=" + out_root)
        if ctx.attr.services:
            args.add("--plugin=protoc-gen-grpc=" + plugin.path)
            args.add("--grpc_out=generate_mock_code=false:" + out_root)
        args.add(src)
        ctx.actions.run(
            executable = protoc,
            arguments = [args],
            inputs = transitive,
            tools = [plugin],
            outputs = hs + cs,
            mnemonic = "ProtocCpp",
            progress_message = "Generating C++ from %{label}",
        )
        headers += hs
        sources += cs
    return [
        DefaultInfo(files = depset(headers + sources)),
        OutputGroupInfo(headers = depset(headers), sources = depset(sources)),
        ProtoSourcesInfo(sources = transitive, roots = roots),
    ]

_generate = rule(
    implementation = _generate_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".proto"], mandatory = True),
        "deps": attr.label_list(providers = [ProtoSourcesInfo]),
        "services": attr.bool(default = True),
        "_protoc": attr.label(default = "@system_libs//:bin/protoc", allow_single_file = True, cfg = "exec"),
        "_plugin": attr.label(default = "@system_libs//:bin/grpc_cpp_plugin", allow_single_file = True, cfg = "exec"),
    },
)

def cc_grpc_library(name, srcs, deps = [], services = True, **kwargs):
    """A cc_library of the code that protoc makes from srcs.

    Args:
      name: the library's name.
      srcs: .proto files, imported by their path from the package.
      deps: other cc_grpc_library targets whose .proto files these import.
      services: whether to make gRPC stubs too.
      **kwargs: passed on to cc_library.
    """
    _generate(
        name = name + "_proto",
        srcs = srcs,
        deps = [d + "_proto" for d in deps],
        services = services,
        visibility = kwargs.get("visibility"),
    )
    for group in ["headers", "sources"]:
        native.filegroup(
            name = name + "_" + group,
            srcs = [":" + name + "_proto"],
            output_group = group,
        )
    cc_library(
        name = name,
        srcs = [":" + name + "_sources"],
        hdrs = [":" + name + "_headers"],
        copts = ["-w"],
        includes = ["."],
        deps = deps + (["//third_party:grpcpp"] if services else ["//third_party:protobuf"]),
        **kwargs
    )
