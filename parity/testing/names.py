"""Names that the plugin and its fixture must spell alike. Imports nothing."""

#: Under this name reports carry the files that a test recorded, from workers of pytest-xdist, too.
RECORDED = "parity_recorded"
