"""The corpora, one file each."""

from ...plugins.registry import import_catalogue

import_catalogue(__name__, __path__)
