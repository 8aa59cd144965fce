"""Modules that methods train or keep; imported when a method is built, since they load torch."""
