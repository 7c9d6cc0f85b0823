"""What holds for all tests."""

from hypothesis import settings

# How long one example takes says more about the machine than about the program.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
