"""One module a file format: the only code that knows file names and layouts."""
