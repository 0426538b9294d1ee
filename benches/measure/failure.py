"""Why a measurement does not go on."""


class Failure(Exception):
    """Nothing can be measured, or what was measured is wrong."""


class Skipped(Exception):
    """This machine lacks what a group or a row needs."""
