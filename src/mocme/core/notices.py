"""Warnings that are written for the user of the package, not for its programmer."""

from __future__ import annotations


class Notice(UserWarning):
    """A remark for the user: what was not done, why, and the remedy.

    The command line prints it as a note, a server writes it to its log.
    """
