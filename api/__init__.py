"""Python: what the command line does, as functions; `headwater` itself hands them on."""
