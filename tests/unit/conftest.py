"""For the tests of this folder: hypothesis sets no time limit for an example, which other work on the machine slows down."""

import hypothesis

hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")
