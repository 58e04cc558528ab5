"""cuda_library: CUDA C++ sources, compiled by nvcc, as a library for cc rules."""

load("@bazel_tools//tools/cpp:toolchain_utils.bzl", "find_cpp_toolchain")
load("@local_cuda//:config.bzl", "NVCC")

def _compile_flags(compilation_context):
    flags = []
    for define in compilation_context.defines.to_list():
        flags.append("-D" + define)
    for d in compilation_context.includes.to_list() + compilation_context.quote_includes.to_list():
        flags += ["-I", d]
    for d in compilation_context.system_includes.to_list():
        flags += ["-isystem", d]
    return flags

def _cuda_library_impl(ctx):
    if not NVCC:
        fail("no CUDA toolkit: set CUDA_HOME, or build without --config=cuda")
    toolchain = find_cpp_toolchain(ctx)
    features = cc_common.configure_features(
        ctx = ctx,
        cc_toolchain = toolchain,
        requested_features = ctx.features,
        unsupported_features = ctx.disabled_features,
    )
    merged = cc_common.merge_cc_infos(cc_infos = [d[CcInfo] for d in ctx.attr.deps])
    headers = merged.compilation_context.headers
    mode = ctx.var["COMPILATION_MODE"]

    # Not the other sources: a change of one compiles that one.
    included = ctx.files.hdrs + [f for f in ctx.files.srcs if f.extension != "cu"]
    objects = []
    for src in ctx.files.srcs:
        if src.extension != "cu":
            continue
        obj = ctx.actions.declare_file("_objs/%s/%s.pic.o" % (ctx.label.name, src.basename[:-3]))
        args = ctx.actions.args()
        args.add(NVCC)
        args.add(src)
        args.add("-ccbin", toolchain.compiler_executable)
        args.add("-x", "cu")
        args.add("-c", src)
        args.add("-o", obj)
        args.add("-std=" + ctx.attr.std)
        args.add_all(ctx.attr.gencode, format_each = "-gencode=%s")
        args.add("--expt-relaxed-constexpr")
        args.add("--threads=1")

        # nvcc names its intermediate files by process id, which sandboxes share: not in /tmp.
        args.add("--objdir-as-tempdir")
        args.add("-Xcompiler=-fPIC,-Wall")
        if mode == "opt":
            args.add_all(["-O3", "-DNDEBUG", "-lineinfo"])
        elif mode == "dbg":
            args.add_all(["-g", "-O0"])
        else:
            args.add("-O2")
        args.add_all(_compile_flags(merged.compilation_context))
        args.add("-I.")
        args.add_all(ctx.attr.copts)
        ctx.actions.run(
            executable = ctx.file._nvcc,
            arguments = [args],
            inputs = depset([src] + included, transitive = [headers, toolchain.all_files]),
            outputs = [obj],
            env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "TMPDIR": "/tmp"},
            mnemonic = "CudaCompile",
            progress_message = "Compiling %s with nvcc" % src.short_path,
        )
        objects.append(obj)

    linking_context, _ = cc_common.create_linking_context_from_compilation_outputs(
        actions = ctx.actions,
        name = ctx.label.name,
        feature_configuration = features,
        cc_toolchain = toolchain,
        compilation_outputs = cc_common.create_compilation_outputs(
            objects = depset(objects),
            pic_objects = depset(objects),
        ),
        linking_contexts = [d[CcInfo].linking_context for d in ctx.attr.deps],
        disallow_dynamic_library = True,
        alwayslink = ctx.attr.alwayslink,
    )
    own = cc_common.create_compilation_context(headers = depset(ctx.files.hdrs))
    return [
        DefaultInfo(files = depset(objects)),
        CcInfo(
            compilation_context = cc_common.merge_cc_infos(
                cc_infos = [CcInfo(compilation_context = own)] + [d[CcInfo] for d in ctx.attr.deps],
            ).compilation_context,
            linking_context = linking_context,
        ),
    ]

_cuda_library = rule(
    implementation = _cuda_library_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".cu", ".cuh", ".h"]),
        "hdrs": attr.label_list(allow_files = [".cuh", ".h"]),
        "deps": attr.label_list(providers = [CcInfo]),
        "copts": attr.string_list(),
        "gencode": attr.string_list(mandatory = True),
        "std": attr.string(default = "c++20"),
        "alwayslink": attr.bool(default = False),
        "_nvcc": attr.label(
            default = "//third_party/bazel:nvcc.sh",
            allow_single_file = True,
            cfg = "exec",
        ),
        "_cc_toolchain": attr.label(default = "@bazel_tools//tools/cpp:current_cc_toolchain"),
    },
    fragments = ["cpp"],
    toolchains = ["@bazel_tools//tools/cpp:toolchain_type"],
)

def cuda_library(name, deps = [], **kwargs):
    """A library of CUDA sources, built only with --config=cuda.

    `bazel build //...` without that flag skips it.
    """
    _cuda_library(
        name = name,
        deps = deps + ["@local_cuda//:cudart_static"],
        target_compatible_with = select({
            "//third_party/bazel:cuda_enabled": [],
            "//conditions:default": ["//third_party/bazel:flag_is_off"],
        }),
        **kwargs
    )
