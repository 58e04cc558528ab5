"""e2e_tests: pytest files as test targets, so that Bazel keeps their results."""

def e2e_tests(name, srcs, data):
    """A test a file, and a suite of them all.

    They are `manual`, since they need what deploy/test prepares, and `exclusive`, since some of
    them watch the clock.

    Args:
      name: the suite's name.
      srcs: pytest files.
      data: what all of them read.
    """
    for src in srcs:
        native.sh_test(
            name = src[:-len(".py")],
            srcs = ["run_pytest.sh"],
            args = ["$(location %s)" % src],
            data = [src] + data,
            tags = ["exclusive", "manual", "no_asan", "no_tsan"],
            timeout = "moderate",
        )
    native.test_suite(
        name = name,
        tests = [":" + src[:-len(".py")] for src in srcs],
        tags = ["manual"],
    )
