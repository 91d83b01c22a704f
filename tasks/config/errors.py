"""The error of the person who runs this, apart from errors of libraries and of the machine."""


class ConfigurationError(ValueError):
    """Something that a person gave cannot be used as it is: a setting, a data file, a model.

    The same input fails the same way, so it is not tried again; its message stands alone, without a traceback, and the
    exit status is 2. Other libraries raise ValueError too, which says nothing of the kind.
    """
