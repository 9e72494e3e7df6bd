"""File formats for facts and tables: the only code that knows file names and layouts."""
