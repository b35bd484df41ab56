"""The upstreams that read text, a file for each family of models."""

from ....plugins.registry import import_catalogue

import_catalogue(__name__, __path__)
