"""device_tests: a folder's tests of devices, each on its own and all in one program."""

load("@rules_cc//cc:defs.bzl", "cc_binary", "cc_library", "cc_test")

def device_tests(name, tests, deps, data = [], shard_count = {}, tags = []):
    """A cc_test a file, and `name`: one program of them all, for a machine with a GPU.

    The program finds its libraries, the CUDA plugin among them, in ../lib (deploy/bundle).

    Args:
      name: the program's name.
      tests: what the files are called, without ".cc". Their test suites have distinct names.
      deps: what any of them needs.
      data: what any of them reads.
      shard_count: of those tests that have one.
      tags: of all.
    """
    for test in tests:
        cc_library(
            name = test + "_cases",
            testonly = True,
            srcs = [test + ".cc"],
            deps = deps + ["//third_party:gtest"],
            alwayslink = True,
        )
        cc_test(
            name = test,
            data = data,
            shard_count = shard_count.get(test),
            tags = tags,
            deps = [
                ":" + test + "_cases",
                "//third_party:gtest_main",
            ],
        )
    cc_binary(
        name = name,
        testonly = True,
        linkopts = [
            "-Wl,-rpath,'$$ORIGIN/../lib'",
            "-Wl,--disable-new-dtags",
        ],
        visibility = ["//deploy:__pkg__"],
        deps = [":" + test + "_cases" for test in tests] + ["//third_party:gtest_main"],
    )
