"""Replaying windows of a finished run, and comparing with what it wrote down."""
