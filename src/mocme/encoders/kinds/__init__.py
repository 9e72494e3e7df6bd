"""The kinds of encoders, one module for each; what is defined here can be chosen by `kind`."""
