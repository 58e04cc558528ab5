"""e2e_tests: pytest files as test targets, so that Bazel keeps their results."""

def _pytest(name, src, data, tags, timeout = "moderate"):
    native.sh_test(
        name = name,
        srcs = ["run_pytest.sh"],
        args = ["$(location %s)" % src],
        data = [src] + data,
        tags = tags + ["manual", "no_tsan"],
        timeout = timeout,
    )

def e2e_tests(name, srcs, data, sanitized, own_data = {}, long = [], unconfined = [], alone = []):
    """A test a file, and a suite of them all.

    They are `manual`, since they need what deploy/test prepares.

    Args:
      name: the suite's name, of the tests of the server as it is installed. The suite
        NAME_sanitized is for --config=asan.
      srcs: pytest files.
      data: what all of them read.
      sanitized: those of the files that the suite NAME_sanitized has: of small models, and without
        bounds of time or memory.
      own_data: what single ones read beside that, by the file's name.
      long: those that may take more than five minutes on a busy machine.
      unconfined: those that mount, for which Bazel's sandbox leaves no rights.
      alone: those that watch the clock, memory or many connections, and so run beside nothing else.
    """
    for src in srcs:
        _pytest(
            src[:-len(".py")],
            src,
            data + own_data.get(src, []) + ["//deploy:bundle"],
            ["no_asan"] + (["no-sandbox"] if src in unconfined else []) +
            (["exclusive"] if src in alone else []),
            "long" if src in long else "moderate",
        )
    for src in sanitized:
        _pytest(src[:-len(".py")] + "_sanitized", src, data + ["//server:sirocco"], [])
    native.test_suite(
        name = name,
        tests = [":" + src[:-len(".py")] for src in srcs],
        tags = ["manual"],
    )
    native.test_suite(
        name = name + "_sanitized",
        tests = [":" + src[:-len(".py")] + "_sanitized" for src in sanitized],
        tags = ["manual"],
    )
