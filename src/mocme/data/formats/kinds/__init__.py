"""The file formats: one module per format, which declares it as `FORMAT`.

A new format is a new module here. Nothing else has to change: `mocme.data.formats.registry`
collects the declarations, and the contract test runs over all of them.
"""
