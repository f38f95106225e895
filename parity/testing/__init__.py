"""The pytest plugin: the fixture ``parity``, which compares modules with golden files beside the test."""
